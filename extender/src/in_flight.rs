//! Pods that a call is writing: one call at a time for each pod, so that no two calls plan it at once.

use std::collections::BTreeSet;

use kerf::ids::PodUid;
use parking_lot::Mutex;

#[derive(Debug, Default)]
pub(crate) struct InFlight {
    pods: Mutex<BTreeSet<PodUid>>,
}

/// A call's right to write one pod, until it is dropped.
#[derive(Debug)]
pub(crate) struct Writing<'a> {
    all: &'a InFlight,
    uid: &'a PodUid,
}

impl InFlight {
    /// `None` while another call writes the pod.
    pub fn begin<'a>(&'a self, uid: &'a PodUid) -> Option<Writing<'a>> {
        let new = self.pods.lock().insert(uid.clone());
        // created only where the uid is new: dropping it would end the other call's right
        new.then(|| Writing { all: self, uid })
    }
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        self.all.pods.lock().remove(self.uid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_call_at_a_time_writes_about_a_pod() {
        let all = InFlight::default();
        let (a, b) = (PodUid::from("a"), PodUid::from("b"));
        let first = all.begin(&a);
        assert!(first.is_some() && all.begin(&a).is_none() && all.begin(&b).is_some());
        drop(first);
        assert!(all.begin(&a).is_some());
    }
}
