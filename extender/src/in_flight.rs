//! Pods that a call is writing about: one call at a time for each pod, so that no two plan it at once.

use std::collections::BTreeSet;

use kerf::ids::PodUid;
use parking_lot::Mutex;

/// The pods of all calls that write.
#[derive(Debug, Default)]
pub(crate) struct InFlight {
    pods: Mutex<BTreeSet<PodUid>>,
}

/// A call that writes about one pod; dropping it ends that.
#[derive(Debug)]
pub(crate) struct Writing<'a> {
    all: &'a InFlight,
    uid: &'a PodUid,
}

impl InFlight {
    /// Begins to write about a pod; `None` while another call does.
    pub fn begin<'a>(&'a self, uid: &'a PodUid) -> Option<Writing<'a>> {
        let new = self.pods.lock().insert(uid.clone());
        // made only where it is new: to drop one ends the other call's
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
