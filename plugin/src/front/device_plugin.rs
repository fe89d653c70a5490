//! kubelet's calls about one resource, answered in the same way for every offer.

use std::sync::Arc;

use futures::stream::{self, BoxStream, StreamExt};
use kerf_proto::deviceplugin::device_plugin_server::DevicePlugin;
use kerf_proto::deviceplugin::{
    AllocateRequest, AllocateResponse, ContainerPreferredAllocationResponse, Device, DevicePluginOptions, Empty,
    ListAndWatchResponse, PreStartContainerRequest, PreStartContainerResponse, PreferredAllocationRequest,
    PreferredAllocationResponse, UNHEALTHY,
};
use tokio::sync::watch;
use tokio_stream::wrappers::WatchStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use crate::base::counters::Counters;
use crate::device::ids::Ids;
use crate::front::encode;
use crate::front::records::Records;
use crate::kubelet::registration::{Open, Streams};
use crate::offer::hand_over::{self, ContainerEdits, Given};
use crate::offer::{NamedBy, Offer, Offered, Offers, order};

/// What is offered as one resource, as it changes.
#[derive(Clone)]
pub(super) struct Served {
    /// As it was when it was registered.
    pub(super) offer: Arc<Offer>,
    pub(super) offers: watch::Receiver<Arc<Offers>>,
    /// `None` where the extender does not place the pods.
    pub(super) records: Option<Records>,
    pub(super) counters: Counters,
}

impl Served {
    pub(super) fn options(&self) -> DevicePluginOptions {
        DevicePluginOptions { pre_start_required: self.offer.pre_start, get_preferred_allocation_available: true }
    }

    /// As it is offered now; without ids where it no longer is.
    fn now(&self) -> Arc<Offered> {
        let offered = self.offers.borrow().resources.get(&self.offer.resource).cloned();
        offered.unwrap_or_else(|| Arc::new(Offer::clone(&self.offer).on(Vec::new())))
    }

    /// kubelet counts as waiting for an answer until the returned value is dropped.
    fn answering(&self) -> Option<impl Drop + use<>> {
        self.records.as_ref().map(|records| records.reconciler.answering())
    }

    /// The lists of devices, and whether each is to be sent although nothing has changed.
    fn lists(&self) -> BoxStream<'static, (Vec<Device>, bool)> {
        let mut news = vec![WatchStream::new(self.offers.clone()).map(|_| false).boxed()];
        if let Some(Records { state, .. }) = &self.records {
            // devices are not offered while no pod can be steered to them
            news.push(WatchStream::from_changes(state.watch_withdrawn()).map(|_| false).boxed());
            if self.offer.repeats() {
                // makes kubelet write its checkpoint again: see [`crate::reconcile`]
                news.push(WatchStream::from_changes(state.watch_repeats()).map(|()| true).boxed());
            }
        }
        let served = self.clone();
        stream::select_all(news).map(move |again| (encode::devices(&served.now()), again)).boxed()
    }

    async fn prefer(&self, request: PreferredAllocationRequest) -> PreferredAllocationResponse {
        let _answering = self.answering();
        let offered = self.now();
        let mut container_responses = Vec::new();
        for request in request.container_requests {
            let device_i_ds = match (offered.offer.named_by.placed(), &self.records) {
                (Some(resource), Some(records)) => records.prefer(resource, &offered, &request).await,
                _ => {
                    let size = usize::try_from(request.allocation_size).unwrap_or_default();
                    let (available, must) = (&request.available_device_i_ds, &request.must_include_device_i_ds);
                    order::choose(offered.offer.order, &offered.pool, available, must, size)
                }
            };
            container_responses.push(ContainerPreferredAllocationResponse { device_i_ds });
        }
        PreferredAllocationResponse { container_responses }
    }

    /// What the container with these ids gets.
    async fn allocate(&self, offered: &Offered, ids: Vec<String>) -> Result<ContainerEdits, Status> {
        let (offer, resource) = (&offered.offer, &self.offer.label);
        match (&offer.named_by, &self.records) {
            (NamedBy::Record(recorded), Some(records)) => {
                let ids = Ids::new(ids);
                let result = records.allocate(recorded, ids.clone()).await;
                let decided = result.as_ref().map(|answer| (&answer.key, &answer.decision));
                records.state.decided(recorded, ids.len(), decided);
                let answer = result.map_err(|refusal| {
                    if let Some(pod) = refusal.pod() {
                        records.refused(pod, &refusal.to_string());
                    }
                    self.refuse(refusal.code(), refusal.of_node(), &refusal)
                })?;
                self.count(if answer.repeated() { "repeated" } else { "granted" });
                tracing::info!(
                    resource, pod = %answer.reference, uid = %answer.key.pod, container = %answer.key.container,
                    gpus = %answer.grant, repeated = answer.repeated(), evidence = %answer.decision.evidence,
                    candidates = answer.decision.candidates, "allocated"
                );
                let mut edits = offer.hand_over.edits(&Given::by_record(&answer.grant, &records.state.cards()));
                if let Some(limits) = records.limits.as_ref().filter(|_| offer.limits) {
                    let prepared = limits.prepare(&records.state, &answer, ids).await;
                    let refused = |status: &Status| records.refused(&answer.reference, status.message());
                    edits = edits.and(prepared.inspect_err(refused)?);
                }
                records.state.doubt();
                Ok(edits)
            }
            (named_by, records) => {
                let given = Given::by_ids(&offered.pool, offer.one_share, &ids).map_err(|refusal| {
                    let of_node = matches!(refusal, hand_over::Refusal::Unknown(_));
                    self.refuse(refusal.code(), of_node, &refusal)
                })?;
                self.count("granted");
                if let (Some(recorded), Some(records)) = (named_by.placed(), records) {
                    records.took(recorded, &ids).await;
                }
                tracing::info!(%resource, ids = ids.join(","), "allocated");
                Ok(offer.hand_over.edits(&given))
            }
        }
    }

    fn count(&self, outcome: &str) {
        self.counters.allocations.with_label_values(&[self.offer.label.as_str(), outcome]).inc();
    }

    /// `of_node`: the node is to blame.
    fn refuse(&self, code: &str, of_node: bool, refusal: &dyn std::error::Error) -> Status {
        self.count(code);
        tracing::warn!(resource = %self.offer.label, %refusal, "Allocate refused");
        if let Some(records) = self.records.as_ref().filter(|_| of_node) {
            records.state.failed(refusal.to_string());
        }
        Status::failed_precondition(refusal.to_string())
    }

    async fn starts(&self, ids: Ids) -> Result<(), Status> {
        let Some(records) = self.records.as_ref().filter(|_| self.offer.pre_start) else { return Ok(()) };
        let outcome = records.starts(&self.offer.label, &ids).await;
        self.counters.starts.with_label_values(&[outcome]).inc();
        if let Some(limits) = records.limits.as_ref().filter(|_| self.offer.limits) {
            limits.starts(&records.state, ids).await?;
        }
        records.state.doubt();
        Ok(())
    }
}

/// One resource's service, for as long as one socket is open.
pub(super) struct Service {
    pub(super) served: Served,
    /// How many ListAndWatch streams are open.
    pub(super) streams: watch::Sender<Streams>,
    /// Ends the streams.
    pub(super) token: CancellationToken,
}

#[tonic::async_trait]
impl DevicePlugin for Service {
    async fn get_device_plugin_options(&self, _: Request<Empty>) -> Result<Response<DevicePluginOptions>, Status> {
        Ok(Response::new(self.served.options()))
    }

    type ListAndWatchStream = BoxStream<'static, Result<ListAndWatchResponse, Status>>;

    /// Sends each list that differs from the one before it, and each that is to be repeated. While devices are
    /// withdrawn, none is healthy.
    async fn list_and_watch(&self, _: Request<Empty>) -> Result<Response<Self::ListAndWatchStream>, Status> {
        let withdrawn = self.served.records.as_ref().map(|records| records.state.watch_withdrawn());
        let open = Open::new(self.streams.clone());
        let mut last = None;
        let told = self.served.lists().filter_map(move |(mut devices, again)| {
            let _counted = &open;
            if withdrawn.as_ref().is_some_and(|withdrawn| *withdrawn.borrow()) {
                devices.iter_mut().for_each(|device| UNHEALTHY.clone_into(&mut device.health));
            }
            // a change that kubelet does not see, such as of a link, is not worth sending thousands of ids
            let news = again || last.as_ref() != Some(&devices);
            if news {
                last = Some(devices.clone());
            }
            std::future::ready(news.then_some(Ok(ListAndWatchResponse { devices })))
        });
        Ok(Response::new(told.take_until(self.token.clone().cancelled_owned()).boxed()))
    }

    async fn get_preferred_allocation(
        &self,
        request: Request<PreferredAllocationRequest>,
    ) -> Result<Response<PreferredAllocationResponse>, Status> {
        Ok(Response::new(self.served.prefer(request.into_inner()).await))
    }

    async fn allocate(&self, request: Request<AllocateRequest>) -> Result<Response<AllocateResponse>, Status> {
        let _answering = self.served.answering();
        let offered = self.served.now();
        let mut container_responses = Vec::new();
        for container in request.into_inner().container_requests {
            let edits = self.served.allocate(&offered, container.devices_ids).await?;
            container_responses.push(encode::answer(edits));
        }
        Ok(Response::new(AllocateResponse { container_responses }))
    }

    async fn pre_start_container(
        &self,
        request: Request<PreStartContainerRequest>,
    ) -> Result<Response<PreStartContainerResponse>, Status> {
        self.served.starts(Ids::new(request.into_inner().devices_ids)).await?;
        Ok(Response::new(PreStartContainerResponse {}))
    }
}
