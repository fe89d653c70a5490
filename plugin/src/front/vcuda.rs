//! kubelet's questions: thin gRPC around [`crate::allocation`] and [`crate::offer::binding`].

use std::sync::Arc;

use futures::stream::{self, BoxStream, Stream, StreamExt};
use kerf_proto::deviceplugin::device_plugin_server::DevicePlugin;
use kerf_proto::deviceplugin::{
    AllocateRequest, AllocateResponse, ContainerAllocateResponse, ContainerPreferredAllocationResponse, Device,
    DevicePluginOptions, Empty, ListAndWatchResponse, PreStartContainerRequest, PreStartContainerResponse,
    PreferredAllocationRequest, PreferredAllocationResponse, UNHEALTHY,
};
use tokio::sync::watch;
use tokio_stream::wrappers::WatchStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use crate::allocation::{Allocations, Answer, Refusal};
use crate::base::counters::Counters;
use crate::device::ids::{Ids, Resource};
use crate::front::vcuda_controller::Tkestack;
use crate::isolation::demand::{Demand, IsolationError, Provision};
use crate::isolation::enforcers::Enforcers;
use crate::offer::binding::{self, Strategy};
use crate::reconcile::Reconciler;
use crate::state::State;
use crate::state::answers::Answers;

/// What both resources' services share.
#[derive(Clone)]
pub struct Shared {
    /// The plugin's memory.
    pub state: State,
    /// Asks kubelet and the API server.
    pub reconciler: Reconciler,
    /// What is counted.
    pub counters: Counters,
    /// How cards are handed to containers.
    pub strategy: Arc<Strategy>,
    /// How containers are held to their shares.
    pub enforcers: Enforcers,
    /// What was answered, for a later life.
    pub answers: Answers,
    /// Serves tkestack's vcuda-controller, where that is wanted.
    pub tkestack: Option<Tkestack>,
}

impl Shared {
    /// Writes down what is answered, before anybody has it.
    async fn note(&self) -> Result<(), Status> {
        let (answers, state) = (self.answers.clone(), self.state.clone());
        let written = tokio::task::spawn_blocking(move || answers.write(&state));
        written.await.map_err(|error| self.unprepared(&error))?.map_err(|error| self.unprepared(&error))
    }

    /// Prepares what holds the container of an answer to its share.
    async fn isolate(&self, answer: &Answer, core: Ids) -> Result<Provision, Status> {
        let (enforcers, given, key) = (self.enforcers.clone(), core.clone(), answer.key.clone());
        let state = self.state.clone();
        let cleared = tokio::task::spawn_blocking(move || {
            enforcers.given(&given, |folder| {
                state.allocations(|allocations| allocations.keeps(&folder.key, &folder.core, &key.pod))
            });
        });
        cleared.await.map_err(|error| self.unprepared(&error))?;
        let cards = self.state.cards();
        let hosts = answer.grant.devices().filter_map(|device| cards.get(device));
        let Some(level) = self.enforcers.level(&answer.grant, hosts, answer.user) else {
            return Ok(Provision::default());
        };
        if let Some(device) = answer.grant.devices().next().filter(|_| level < answer.demanded) {
            // the card has it, and this container cannot use it
            let (pod, device, demanded) = (answer.reference.clone(), device.clone(), answer.demanded);
            let refusal = Refusal::Isolation { pod, device, demanded, found: level };
            tracing::warn!(%refusal, user = answer.user, "Allocate refused");
            self.state.failed(refusal.to_string());
            return Err(Status::failed_precondition(refusal.to_string()));
        }
        let (enforcers, served, ids) = (self.enforcers.clone(), answer.clone(), core.clone());
        let tkestack = self.tkestack.clone().filter(|_| answer.grant.is_share());
        let provided = tokio::task::spawn_blocking(move || {
            let demand = Demand { key: &served.key, core: &ids, grant: &served.grant, limit: served.limit };
            let mut provision = enforcers.provide(&demand, level)?;
            if let Some(tkestack) = tkestack {
                provision.mounts.push(tkestack.provide(&enforcers.folder(&demand, level)?)?);
            }
            Ok::<_, IsolationError>(provision)
        });
        let provision =
            provided.await.map_err(|error| self.unprepared(&error))?.map_err(|error| self.unprepared(&error))?;
        self.state.allocations(|allocations| allocations.enforced(&answer.key, core, level));
        Ok(provision)
    }

    /// A container without its limits does not start.
    fn unprepared(&self, error: &dyn std::fmt::Display) -> Status {
        tracing::error!(%error, "limits of a container cannot be prepared");
        let reason = format!("limits of the container cannot be prepared: {error}");
        self.state.failed(reason.clone());
        Status::internal(reason)
    }

    async fn allocate(&self, resource: &Resource, ids: Ids) -> Result<Answer, Refusal> {
        let known = |allocations: &mut Allocations| {
            allocations.expects(resource, &ids) && allocations.certain(resource, ids.len())
        };
        if !self.state.allocations(known) {
            self.reconciler.learn(resource, std::iter::once(ids.len())).await;
        }
        let first = self.state.allocations(|allocations| allocations.allocate(resource, ids.clone()));
        match first {
            Ok(answer) => Ok(answer),
            Err(refusal) if refusal.settled() => Err(refusal),
            Err(refusal) => {
                tracing::debug!(%refusal, "asking again before refusing");
                let refreshed = self.reconciler.refresh().await;
                let _ = self.reconciler.compare(true).await;
                let again = self.state.allocations(|allocations| allocations.allocate(resource, ids));
                again.map_err(|refusal| match (refusal, refreshed) {
                    (Refusal::NobodyWaits { .. } | Refusal::Ambiguous { .. }, Err(error)) => {
                        Refusal::NoAnswer { failure: error.failure() }
                    }
                    (refusal, _) => refusal,
                })
            }
        }
    }
}

/// One resource's service, for the life of one socket.
pub struct Service {
    shared: Shared,
    resource: Resource,
    /// How many ListAndWatch streams are open.
    streams: watch::Sender<Streams>,
    /// Ends the streams.
    token: CancellationToken,
}

/// ListAndWatch streams of one socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Streams {
    /// Since the socket was opened.
    pub opened: u64,
    /// Now.
    pub open: u64,
}

impl Service {
    /// Serves `resource` until `token` is cancelled; `streams` follows kubelet's connections.
    pub fn new(
        shared: Shared,
        resource: Resource,
        streams: watch::Sender<Streams>,
        token: CancellationToken,
    ) -> Self {
        Self { shared, resource, streams, token }
    }
}

/// ListAndWatch's answers, until `token` is cancelled: of `told` each list that is another than the one before it, and
/// each that comes with the wish to tell it again. While `withdrawn` says so, no device is healthy. Counted in `streams`
/// for as long as they are listened to.
pub fn lists(
    told: impl Stream<Item = (Vec<Device>, bool)> + Send + 'static,
    withdrawn: impl Fn() -> bool + Send + 'static,
    streams: watch::Sender<Streams>,
    token: CancellationToken,
) -> BoxStream<'static, Result<ListAndWatchResponse, Status>> {
    let open = Open::new(streams);
    let mut last = None;
    let lists = told.filter_map(move |(mut devices, again)| {
        let _counted = &open;
        if withdrawn() {
            devices.iter_mut().for_each(|device| UNHEALTHY.clone_into(&mut device.health));
        }
        // a change that kubelet does not see, such as of a link, is not worth thousands of ids
        let news = again || last.as_ref() != Some(&devices);
        if news {
            last = Some(devices.clone());
        }
        std::future::ready(news.then_some(Ok(ListAndWatchResponse { devices })))
    });
    lists.take_until(token.cancelled_owned()).boxed()
}

/// Counts a stream for as long as it lives.
struct Open(watch::Sender<Streams>);

impl Open {
    fn new(streams: watch::Sender<Streams>) -> Self {
        streams.send_modify(|streams| {
            streams.opened += 1;
            streams.open += 1;
        });
        Self(streams)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.send_modify(|streams| streams.open = streams.open.saturating_sub(1));
    }
}

/// Options of both resources.
pub fn options() -> DevicePluginOptions {
    DevicePluginOptions { pre_start_required: true, get_preferred_allocation_available: true }
}

#[tonic::async_trait]
impl DevicePlugin for Service {
    async fn get_device_plugin_options(&self, _: Request<Empty>) -> Result<Response<DevicePluginOptions>, Status> {
        Ok(Response::new(options()))
    }

    type ListAndWatchStream = BoxStream<'static, Result<ListAndWatchResponse, Status>>;

    async fn list_and_watch(&self, _: Request<Empty>) -> Result<Response<Self::ListAndWatchStream>, Status> {
        let resource = self.resource.clone();
        let core = resource == Resource::Core;
        let state = self.shared.state.clone();
        let cards = WatchStream::new(state.watch_cards()).map(|_| false);
        // one resource suffices for kubelet to write all its books: the one with fewer ids
        let repeats = WatchStream::from_changes(state.watch_repeats())
            .filter(move |()| std::future::ready(core))
            .map(|()| true);
        let withdrawn = state.watch_withdrawn();
        let changes = WatchStream::from_changes(withdrawn.clone()).map(|_| false);
        let told = stream::select(stream::select(cards, changes), repeats);
        let told = told.map(move |again| (state.cards().list(&resource), again));
        let withdrawn = move || *withdrawn.borrow();
        Ok(Response::new(lists(told, withdrawn, self.streams.clone(), self.token.clone())))
    }

    async fn get_preferred_allocation(
        &self,
        request: Request<PreferredAllocationRequest>,
    ) -> Result<Response<PreferredAllocationResponse>, Status> {
        let shared = &self.shared;
        let _answering = shared.reconciler.answering();
        let requests = request.into_inner().container_requests;
        let sizes = requests.iter().map(|r| u64::try_from(r.allocation_size).unwrap_or_default());
        shared.reconciler.learn(&self.resource, sizes).await;
        let container_responses = shared.state.allocations(|allocations| {
            let chosen = requests.iter().map(|r| {
                let size = usize::try_from(r.allocation_size).unwrap_or_default();
                let ids =
                    allocations.prefer(&self.resource, &r.available_device_i_ds, &r.must_include_device_i_ds, size);
                allocations.offers(&self.resource, &Ids::new(ids.iter().cloned()));
                ids
            });
            chosen.map(|device_i_ds| ContainerPreferredAllocationResponse { device_i_ds }).collect()
        });
        Ok(Response::new(PreferredAllocationResponse { container_responses }))
    }

    async fn allocate(&self, request: Request<AllocateRequest>) -> Result<Response<AllocateResponse>, Status> {
        let _answering = self.shared.reconciler.answering();
        let mut container_responses = Vec::new();
        for container in request.into_inner().container_requests {
            let ids = Ids::new(container.devices_ids);
            let (resource, units) = (self.resource.as_str(), ids.len());
            let result = self.shared.allocate(&self.resource, ids.clone()).await;
            let outcome = match &result {
                Ok(answer) if answer.repeated() => "repeated",
                Ok(_) => "granted",
                Err(refusal) => refusal.code(),
            };
            self.shared.counters.allocations.with_label_values(&[resource, outcome]).inc();
            self.shared.state.decided(
                &self.resource,
                units,
                result.as_ref().map(|answer| (&answer.key, &answer.decision)),
            );
            let answer = result.map_err(|refusal| {
                tracing::warn!(resource, %refusal, "Allocate refused");
                if refusal.of_node() {
                    self.shared.state.failed(refusal.to_string());
                }
                Status::failed_precondition(refusal.to_string())
            })?;
            tracing::info!(
                resource, pod = %answer.reference, uid = %answer.key.pod, container = %answer.key.container,
                gpus = %answer.grant, repeated = answer.repeated(), evidence = %answer.decision.evidence,
                candidates = answer.decision.candidates, "allocated"
            );
            container_responses.push(match &self.resource {
                Resource::Core => {
                    self.shared.note().await?;
                    let provision = self.shared.isolate(&answer, ids).await?;
                    let cards = self.shared.state.cards();
                    binding::container(&answer.grant, &cards, &self.shared.strategy).with(provision).into()
                }
                Resource::Memory | Resource::Counted(_) => ContainerAllocateResponse::default(),
            });
            self.shared.state.doubt();
        }
        Ok(Response::new(AllocateResponse { container_responses }))
    }

    async fn pre_start_container(
        &self,
        request: Request<PreStartContainerRequest>,
    ) -> Result<Response<PreStartContainerResponse>, Status> {
        let ids = Ids::new(request.into_inner().devices_ids);
        let state = &self.shared.state;
        let known = || state.allocations(|allocations| allocations.starts(&ids));
        let outcome = if known() {
            "known"
        } else {
            let _ = self.shared.reconciler.refresh().await;
            let _ = self.shared.reconciler.compare(false).await;
            // an init container's ids from before a restart of this process are known to kubelet alone, and what
            // the container has was decided at Allocate: there is nothing to refuse here
            if known() { "adopted" } else { "unknown" }
        };
        self.shared.counters.starts.with_label_values(&[outcome]).inc();
        if self.resource == Resource::Core {
            let (enforcers, core) = (self.shared.enforcers.clone(), ids.clone());
            let pods = state.allocations(|allocations| allocations.view());
            let prepared = tokio::task::spawn_blocking(move || enforcers.starts(&core, &pods));
            prepared
                .await
                .map_err(|error| self.shared.unprepared(&error))?
                .map_err(|error| self.shared.unprepared(&error))?;
        }
        state.doubt();
        if outcome == "unknown" {
            let units = ids.len();
            tracing::info!(
                resource = self.resource.as_str(),
                units,
                "a container starts with ids of an earlier life"
            );
        }
        Ok(Response::new(PreStartContainerResponse {}))
    }
}
