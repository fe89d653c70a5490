//! Workloads, one after the other, under one policy.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use kerf::annotation::Keys;
use kerf::ids::{PodRef, PodUid};
use kerf::k8s;
use kerf::placement::advise::Placing;
use kerf::plan::Plan;
use kerf::policy::Policy;
use kerf::request::{GpuRequest, PodRequest};

use super::manifest::Workload;
use crate::place::{Found, Trial};

/// What becomes of the workloads under one policy.
pub struct Planned {
    pub policy: Policy,
    pub workloads: Vec<Placed>,
    /// The cluster with all of their pods.
    pub after: Trial,
}

/// A workload and where its pods go.
pub struct Placed {
    pub name: String,
    /// How many pods it has.
    pub pods: u64,
    /// The rule that its pods break.
    pub refused: Option<String>,
    /// Whether its pods ask for GPUs: others may go anywhere.
    pub asks: bool,
    /// Of the pods that fit, in their order.
    pub placements: Vec<Placement>,
    /// What the nodes say: of the pod that fits nowhere, otherwise of the first one.
    pub found: Found,
}

/// Where one pod goes.
pub struct Placement {
    pub pod: String,
    pub node: String,
    pub plan: Plan,
}

impl Placed {
    /// Whether all of its pods fit.
    pub fn fits(&self) -> bool {
        self.refused.is_none() && (!self.asks || self.placements.len() as u64 == self.pods)
    }
}

impl Planned {
    /// Places the workloads one after the other.
    pub fn of(workloads: &[Workload], policy: Policy, mut trial: Trial, keys: &Keys) -> Self {
        let each = |(at, own): (usize, &Workload)| placed(own, at, policy, &mut trial, keys);
        let workloads = workloads.iter().enumerate().map(each).collect();
        Self { policy, workloads, after: trial }
    }
}

fn placed(workload: &Workload, at: usize, policy: Policy, trial: &mut Trial, keys: &Keys) -> Placed {
    let mut placed = Placed {
        name: workload.name.clone(),
        pods: workload.pods,
        refused: None,
        asks: true,
        placements: Vec::new(),
        found: Found::default(),
    };
    let request: Arc<GpuRequest> = match k8s::request(&workload.pod, keys) {
        Ok(Some(request)) => Arc::new(request),
        Ok(None) => return Placed { asks: false, ..placed },
        Err(rule) => return Placed { refused: Some(rule.to_string()), ..placed },
    };
    let placing = Placing::new(&request, policy);
    for number in 0..workload.pods {
        let pod = numbered(workload, at, number);
        let found = trial.find(&pod, placing);
        let Some(best) = found.fitting.first() else {
            // those after it are alike
            placed.found = found;
            break;
        };
        let metadata = &pod.metadata;
        let name = metadata.name.clone().unwrap_or_default();
        let reference = PodRef::new(metadata.namespace.clone().unwrap_or_default(), name.as_str());
        let uid = PodUid::from(metadata.uid.clone().unwrap_or_default());
        let asked = PodRequest { uid, name: reference, request: request.clone() };
        let (node, plan) = (best.node.clone(), best.plan.clone());
        placed.placements.push(Placement { pod: name, node: node.to_string(), plan: plan.clone() });
        trial.put(&asked, &pod, &node, plan);
        if number == 0 {
            placed.found = found;
        }
    }
    placed
}

/// One pod of a workload, with a uid of its own.
fn numbered(workload: &Workload, at: usize, number: u64) -> Pod {
    let mut pod = workload.pod.clone();
    let metadata = &mut pod.metadata;
    if !workload.is_pod {
        metadata.name = metadata.name.as_ref().map(|name| format!("{name}-{number}"));
    }
    let own = || format!("plan-{at}-{number}");
    metadata.uid = Some(metadata.uid.take().filter(|uid| !uid.is_empty()).unwrap_or_else(own));
    pod
}
