//! The pods of the node as the API server has them, and their changes that the watch has not shown yet.

use std::collections::{BTreeMap, VecDeque};

use kerf::annotation::{self, Keys, Record};
use kerf::plan::Placement;

use super::super::dice::Dice;
use crate::allocation::{Allocations, Bystander, Correction, Pod, Seen, Stage};

#[derive(Clone)]
pub(super) struct Subject {
    /// As the API server shows it now.
    pub(super) pod: Pod,
    /// What the extender decided; `None`: the pod has no placement.
    pub(super) placed: Option<Placement>,
    /// Its annotations cannot be read any more.
    pub(super) spoiled: bool,
    /// The plugin was restarted while its record could not be read: ids that it did not have by then may be
    /// refused.
    pub(super) lost: bool,
    /// It has ended on the node, whether or not the API server knows.
    pub(super) over: bool,
}

impl Subject {
    pub(super) fn seen(&self) -> Seen {
        let pod = &self.pod;
        if self.spoiled {
            let (uid, reference) = (pod.uid.clone(), pod.reference.clone());
            let other = Bystander { uid, reference, runtime_ids: BTreeMap::new() };
            return Seen::Other { pod: other, stage: pod.stage };
        }
        Seen::Claimant(Box::new(pod.clone()))
    }
}

#[derive(Default)]
pub(super) struct Subjects {
    pub(super) all: Vec<Subject>,
    /// What the watch has not shown yet, in order.
    news: VecDeque<Seen>,
}

impl Subjects {
    pub(super) fn pods(&self) -> impl Iterator<Item = &Pod> + Clone {
        self.all.iter().map(|subject| &subject.pod)
    }

    pub(super) fn add(&mut self, pod: Pod, placed: Option<Placement>) {
        let subject = Subject { pod, placed, spoiled: false, lost: false, over: false };
        self.news.push_back(subject.seen());
        self.all.push(subject);
    }

    /// Changes a pod; the watch will show it later.
    pub(super) fn change(&mut self, at: usize, change: impl FnOnce(&mut Subject)) {
        change(&mut self.all[at]);
        self.news.push_back(self.all[at].seen());
    }

    /// The watch shows some of the changes.
    pub(super) fn tell(&mut self, allocations: &mut Allocations, some: usize) {
        for seen in self.news.drain(..some.min(self.news.len())) {
            allocations.see(seen);
        }
    }

    /// The plugin forgets records that cannot be read now.
    pub(super) fn lose(&mut self) {
        for subject in &mut self.all {
            subject.lost |= subject.spoiled || subject.pod.record.is_none();
        }
    }

    /// All annotations can be read again.
    pub(super) fn mend(&mut self) {
        for at in 0..self.all.len() {
            self.change(at, |subject| subject.spoiled = false);
        }
    }

    pub(super) fn unheard(&self) -> usize {
        self.news.len()
    }

    pub(super) fn answer(&self) -> Vec<Seen> {
        self.all.iter().map(Subject::seen).collect()
    }

    /// A new watch begins with a list, which contains all that the old one had not shown.
    pub(super) fn list(&mut self, allocations: &mut Allocations) {
        self.news.clear();
        allocations.begin_list();
        self.answer().into_iter().for_each(|seen| allocations.see(seen));
        allocations.end_list();
    }

    /// The plugin writes a record.
    pub(super) fn write(&mut self, correction: &Correction) {
        let keys = Keys::default();
        let at = self.all.iter().position(|subject| subject.pod.uid == correction.uid).unwrap();
        self.change(at, |subject| {
            let pod = &mut subject.pod;
            let mut annotations =
                pod.record.as_ref().map(|record| annotation::write(record, &keys)).unwrap_or_default();
            annotations.insert(keys.gpu_assigned.clone(), pod.confirmed.to_string());
            annotations.extend(correction.annotations.clone());
            if let Record::Placed(placement) = annotation::read(&annotations, &keys, &pod.request) {
                pod.record = Some(placement);
            }
            pod.confirmed = annotation::confirmed(&annotations, &keys);
        });
    }

    /// Another client writes nonsense on a pod, or removes its record.
    pub(super) fn edit(&mut self, at: usize, dice: &mut Dice) {
        let way = dice.roll(4);
        self.change(at, |subject| match way {
            0 => subject.pod.record = None,
            1 => subject.spoiled = true,
            2 => subject.pod.confirmed ^= true,
            _ => {
                subject.spoiled = false;
                if subject.pod.stage == Stage::Live {
                    subject.pod.stage = Stage::Terminating;
                }
            }
        });
    }
}
