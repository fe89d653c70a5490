//! The pod of a call: as the watch shows it or, where that lags behind the scheduler's watch, as the API server has it.
//! The caller's data serves only to find it.

use kerf::ids::{NodeName, PodRef, PodUid};
use kerf::k8s;
use kerf::request::{PodRequest, RequestError};

use crate::app::App;
use crate::binder::ReadError;
use crate::queue::Waiting;

/// Why a pod is not found as waiting.
#[derive(Debug, thiserror::Error)]
pub(super) enum Missing {
    #[error("pod {pod} is bound to node {node} already")]
    Bound { pod: PodRef, node: NodeName },
    #[error("pod {0} is gone")]
    Gone(PodRef),
    #[error("pod {pod} is another one by now: its uid is not {uid}")]
    Another { pod: PodRef, uid: PodUid },
    #[error("pod {0} has ended")]
    Ended(PodRef),
    #[error(
        "pod {0} asks for no GPU, and kerf binds only pods that do: leave resources out of which it asks for 0; \
         and managedResources of the scheduler's configuration has to name kerf's resources, so that other pods do not \
         come here"
    )]
    NoGpu(PodRef),
    #[error("{0}")]
    Invalid(RequestError),
    #[error("pod {pod} cannot be read: {error}")]
    Unread { pod: PodRef, error: ReadError },
}

/// The pod of this uid and name, if it waits for a node and asks for GPUs.
pub(super) async fn waiting(app: &App, uid: &PodUid, pod: &PodRef) -> Result<Waiting, Missing> {
    let another = || Missing::Another { pod: pod.clone(), uid: uid.clone() };
    if let Some(waiting) = app.cluster.waiting(uid) {
        return if waiting.pod.name == *pod { Ok(waiting) } else { Err(another()) };
    }
    let found = match app.binder.read(pod).await {
        Ok(Some(found)) => found,
        Ok(None) => return Err(Missing::Gone(pod.clone())),
        Err(error) => return Err(Missing::Unread { pod: pod.clone(), error }),
    };
    let view = k8s::pod(&found, &app.keys).filter(|view| view.uid == *uid).ok_or_else(another)?;
    if view.ended {
        return Err(Missing::Ended(pod.clone()));
    }
    if let Some(node) = view.node.clone() {
        app.cluster.apply_answer(view, &app.clock);
        return Err(Missing::Bound { pod: pod.clone(), node });
    }
    match view.request {
        Ok(Some(request)) => {
            let pod = PodRequest { uid: view.uid, name: view.pod, request };
            Ok(Waiting { pod, tolerations: view.tolerations.into() })
        }
        Ok(None) => Err(Missing::NoGpu(pod.clone())),
        Err(error) => Err(Missing::Invalid(error)),
    }
}
