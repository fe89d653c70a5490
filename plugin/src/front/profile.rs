//! A profile at work: its cards are followed, and each of its resources is kept registered with kubelet.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use futures::stream::{self, BoxStream, StreamExt};
use kerf_proto::deviceplugin::device_plugin_server::DevicePlugin;
use kerf_proto::deviceplugin::{
    AllocateRequest, AllocateResponse, ContainerPreferredAllocationResponse, DevicePluginOptions, Empty,
    ListAndWatchResponse, PreStartContainerRequest, PreStartContainerResponse, PreferredAllocationRequest,
    PreferredAllocationResponse,
};
use kerf_runtime::readiness::Condition;
use kerf_runtime::shutdown::Tasks;
use tokio::sync::watch;
use tokio_stream::wrappers::WatchStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use crate::base::counters::Counters;
use crate::device::ids::Resource;
use crate::front::placed::Steering;
use crate::front::vcuda::{self, Streams};
use crate::kubelet::registration::{self, Endpoint};
use crate::offer::cdi;
use crate::offer::contract::{Gift, Profile};
use crate::offer::hand_over;
use crate::offer::order;
use crate::offer::pool::{self, Pool, Pools};
use crate::state::State;

/// Follows the cards of `state` and offers what `profile` makes of them, until `token` is cancelled. `ready` is met
/// while every resource is registered and there is one. `steering`: the extender chooses the cards of its pods.
pub async fn follow(
    profile: Arc<Profile>,
    state: State,
    steering: Option<Steering>,
    counters: Counters,
    directory: PathBuf,
    ready: Condition,
    token: CancellationToken,
) {
    let mut cards = state.watch_cards();
    let sender = watch::Sender::new(Arc::new(Offered::default()));
    let registered = Registered { known: Arc::default(), ready };
    let tasks = Tasks::new(token.child_token());
    let mut refusals = BTreeSet::new();
    loop {
        let now = cards.borrow_and_update().clone();
        let made = pool::pools(&profile, &now);
        for refusal in made.refusals.difference(&refusals) {
            tracing::warn!(profile = profile.name, %refusal, "not offered");
        }
        refusals.clone_from(&made.refusals);
        // the names must mean something before a container is told them
        let gift = described(&profile, &sender.borrow().gift, &made);
        let new = made.pools.iter().filter(|(name, _)| registered.add(name));
        // a resource that only shows cards has no place on any
        let new: Vec<_> =
            new.map(|(name, pool)| (name.clone(), steering.clone().filter(|_| !pool::shows_all(pool)))).collect();
        let offered = Offered { pools: made, gift };
        sender.send_if_modified(|known| {
            let changed = **known != offered;
            if changed {
                *known = Arc::new(offered);
            }
            changed
        });
        for (resource, steering) in new {
            let offer = Offer {
                profile: Arc::clone(&profile),
                resource: resource.as_str().into(),
                offered: sender.subscribe(),
                steering,
                counters: counters.clone(),
            };
            let endpoint = Endpoint {
                word: word(profile.name, &resource),
                label: resource.clone(),
                resource: resource.clone(),
                options: options(),
                counters: counters.clone(),
                directory: directory.clone(),
                service: move |streams, token| Service { offer: offer.clone(), streams, token },
            };
            let (registered, stop) = (registered.clone(), tasks.token().clone());
            tasks.spawn(profile.name, async move {
                registration::keep_registered(endpoint, |met| registered.set(&resource, met), stop).await;
            });
        }
        tokio::select! {
            () = token.cancelled() => break,
            changed = cards.changed() => if changed.is_err() { break },
        }
    }
    tasks.drained().await;
}

/// Tells a resource's sockets from those of all others in 15 letters: paths of sockets are short.
fn word(profile: &str, resource: &str) -> String {
    let hash =
        resource.bytes().fold(0x811c_9dc5u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    format!("{}-{hash:08x}", profile.get(..6).unwrap_or(profile))
}

/// What a profile makes of the cards that are here now.
#[derive(Clone, Debug, Default, PartialEq)]
struct Offered {
    pools: Pools,
    /// The profile's; without CDI names while they mean nothing.
    gift: Gift,
}

/// Writes what CDI names mean. Where that fails, containers are not told the names.
fn described(profile: &Profile, before: &Gift, pools: &Pools) -> Gift {
    let whole = profile.gift.clone();
    let Some(cdi) = &whole.cdi else { return whole };
    let hosts = pools.pools.values().flat_map(BTreeMap::values).flat_map(|unit| &unit.hosts);
    for host in hosts.filter(|host| host.device.usable()) {
        let Some((path, text)) = cdi::file(cdi, &whole, &profile.roots, host) else { continue };
        if let Err(error) = cdi::write(&path, &text) {
            let without = Gift { cdi: None, ..whole.clone() };
            if *before != without {
                let path = path.display();
                tracing::warn!(profile = profile.name, %path, %error, "CDI file not written; giving device files alone");
            }
            return without;
        }
    }
    whole
}

/// Which resources kubelet knows.
#[derive(Clone)]
struct Registered {
    known: Arc<Mutex<BTreeMap<String, bool>>>,
    ready: Condition,
}

impl Registered {
    /// Says whether it is new.
    fn add(&self, resource: &str) -> bool {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let new = !known.contains_key(resource);
        known.entry(resource.to_owned()).or_default();
        new
    }

    fn set(&self, resource: &str, met: bool) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(resource.to_owned(), met);
        self.ready.set(known.values().all(|met| *met));
    }
}

/// One resource of a profile.
#[derive(Clone)]
struct Offer {
    profile: Arc<Profile>,
    resource: Arc<str>,
    offered: watch::Receiver<Arc<Offered>>,
    steering: Option<Steering>,
    counters: Counters,
}

impl Offer {
    fn pool(&self) -> Pool {
        self.offered.borrow().pools.pools.get(&*self.resource).cloned().unwrap_or_default()
    }

    /// kubelet waits for an answer for as long as what is returned lives.
    fn answering(&self) -> Option<impl Drop + use<>> {
        self.steering.as_ref().map(|steering| steering.reconciler.answering())
    }

    fn counted(&self) -> Resource {
        Resource::Counted(self.resource.as_ref().into())
    }
}

/// One resource's service, for the life of one socket.
struct Service {
    offer: Offer,
    streams: watch::Sender<Streams>,
    token: CancellationToken,
}

fn options() -> DevicePluginOptions {
    DevicePluginOptions { pre_start_required: false, get_preferred_allocation_available: true }
}

#[tonic::async_trait]
impl DevicePlugin for Service {
    async fn get_device_plugin_options(&self, _: Request<Empty>) -> Result<Response<DevicePluginOptions>, Status> {
        Ok(Response::new(options()))
    }

    type ListAndWatchStream = BoxStream<'static, Result<ListAndWatchResponse, Status>>;

    async fn list_and_watch(&self, _: Request<Empty>) -> Result<Response<Self::ListAndWatchStream>, Status> {
        let (resource, numa) = (Arc::clone(&self.offer.resource), self.offer.profile.numa);
        let current = self.offer.offered.clone();
        let changes = WatchStream::new(self.offer.offered.clone()).map(|offered| (offered, false));
        // what makes kubelet write its books anew: see [`crate::reconcile`]
        let repeats = self.offer.steering.iter().map(|steering| {
            let (current, repeats) = (current.clone(), steering.state.watch_repeats());
            WatchStream::from_changes(repeats).map(move |()| (current.borrow().clone(), true)).boxed()
        });
        // what nobody can be steered to is not offered
        let withdrawn = self.offer.steering.as_ref().map(|steering| steering.state.watch_withdrawn());
        let withdrawals = withdrawn.iter().map(|withdrawn| {
            let current = current.clone();
            WatchStream::from_changes(withdrawn.clone()).map(move |_| (current.borrow().clone(), false)).boxed()
        });
        let repeats = stream::select_all(repeats.chain(withdrawals).collect::<Vec<_>>());
        let told = stream::select(changes, repeats).map(move |(offered, again)| {
            let pool = offered.pools.pools.get(&*resource);
            (pool.map(|pool| pool::list(pool, numa)).unwrap_or_default(), again)
        });
        let withdrawn = move || withdrawn.as_ref().is_some_and(|withdrawn| *withdrawn.borrow());
        Ok(Response::new(vcuda::lists(told, withdrawn, self.streams.clone(), self.token.clone())))
    }

    async fn get_preferred_allocation(
        &self,
        request: Request<PreferredAllocationRequest>,
    ) -> Result<Response<PreferredAllocationResponse>, Status> {
        let _answering = self.offer.answering();
        let (pool, order) = (self.offer.pool(), self.offer.profile.order);
        let mut container_responses = Vec::new();
        for request in request.into_inner().container_requests {
            let device_i_ds = match &self.offer.steering {
                Some(steering) => steering.prefer(&self.offer.counted(), order, &pool, &request).await,
                None => {
                    let size = usize::try_from(request.allocation_size).unwrap_or_default();
                    let (available, must) = (&request.available_device_i_ds, &request.must_include_device_i_ds);
                    order::choose(order, &pool, available, must, size)
                }
            };
            container_responses.push(ContainerPreferredAllocationResponse { device_i_ds });
        }
        Ok(Response::new(PreferredAllocationResponse { container_responses }))
    }

    async fn allocate(&self, request: Request<AllocateRequest>) -> Result<Response<AllocateResponse>, Status> {
        let _answering = self.offer.answering();
        let Offer { profile, resource, counters, .. } = &self.offer;
        let (pool, gift) = (self.offer.pool(), self.offer.offered.borrow().gift.clone());
        let mut container_responses = Vec::new();
        for container in request.into_inner().container_requests {
            let ids = container.devices_ids;
            let result = hand_over::answer(&gift, profile.one_share, &profile.roots, &pool, &ids);
            let outcome = result.as_ref().map_or_else(hand_over::Refusal::code, |_| "granted");
            counters.allocations.with_label_values(&[resource, outcome]).inc();
            let answer = result.map_err(|refusal| {
                tracing::warn!(%resource, %refusal, "Allocate refused");
                if let (Some(steering), hand_over::Refusal::Unknown(_)) = (&self.offer.steering, &refusal) {
                    steering.state.failed(refusal.to_string());
                }
                Status::failed_precondition(refusal.to_string())
            })?;
            if let Some(steering) = &self.offer.steering {
                steering.took(&self.offer.counted(), &ids).await;
            }
            tracing::info!(%resource, ids = ids.join(","), "allocated");
            container_responses.push(answer);
        }
        Ok(Response::new(AllocateResponse { container_responses }))
    }

    async fn pre_start_container(
        &self,
        _: Request<PreStartContainerRequest>,
    ) -> Result<Response<PreStartContainerResponse>, Status> {
        Ok(Response::new(PreStartContainerResponse {}))
    }
}
