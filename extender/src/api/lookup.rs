//! The pod that a call names: as the watch shows it or, where that lags behind the scheduler's, as the API server has
//! it. What the caller says of it serves to find it and for nothing else.

use kerf::ids::{NodeName, PodRef, PodUid};
use kerf::k8s;

use crate::App;
use crate::cluster::Waiting;

/// Why there is nothing to do for the pod.
pub(super) enum Missing {
    /// It is bound to this node.
    Bound(NodeName),
    /// It is gone, has ended, is another one, or asks for no card.
    Refused(String),
    /// It breaks the contract.
    Invalid(String),
    /// The API server has not said.
    Unread(String),
}

/// The pod of this uid and name, if it waits for a node and asks for cards.
pub(super) async fn waiting(app: &App, uid: &PodUid, pod: &PodRef) -> Result<Waiting, Missing> {
    let another = || Missing::Refused(format!("pod {pod} is another one by now: its uid is not {uid}"));
    if let Some(waiting) = app.cluster.waiting(uid) {
        return if waiting.pod == *pod { Ok(waiting) } else { Err(another()) };
    }
    let found = match app.binder.read(pod).await {
        Ok(Some(found)) => found,
        Ok(None) => return Err(Missing::Refused(format!("pod {pod} is gone"))),
        Err(error) => return Err(Missing::Unread(format!("pod {pod} cannot be read: {error}"))),
    };
    let view = k8s::pod(&found, &app.keys).filter(|view| view.uid == *uid).ok_or_else(another)?;
    if view.ended {
        return Err(Missing::Refused(format!("pod {pod} has ended")));
    }
    if let Some(home) = view.node.clone() {
        app.cluster.apply_answer(view, &app.clock);
        return Err(Missing::Bound(home));
    }
    match view.request {
        Ok(Some(request)) => Ok(Waiting { pod: view.pod, request, tolerations: view.tolerations.into() }),
        Ok(None) => Err(Missing::Refused(format!(
            "pod {pod} asks for no GPU, and kerf binds only pods that do: managedResources of the scheduler's \
             configuration has to name kerf's resources"
        ))),
        Err(error) => Err(Missing::Invalid(error.to_string())),
    }
}
