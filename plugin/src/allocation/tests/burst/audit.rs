//! What must be true of a burst, during it and at its end.

use super::*;

impl Burst {
    /// A running pod keeps the GPUs that it has.
    pub(super) fn nothing_is_forgotten(&self) {
        if self.trouble.silent {
            return;
        }
        let mut least: BTreeMap<DeviceId, Milli> = BTreeMap::new();
        for subject in self.subjects.all.iter().filter(|subject| !subject.over) {
            let Some(placement) = &subject.placed else { continue };
            let listed = self.kubelet.present.contains(&subject.pod.reference);
            let all = placement.plan.grants.iter().filter(|grant| grant.kind != ContainerKind::Init);
            let runs = |grant: &&ContainerGrant| {
                let key = (subject.pod.reference.clone(), grant.container.clone());
                self.kubelet.held.get(&key).is_some_and(|held| held.contains_key(&Resource::Core))
            };
            for grant in all.filter(runs).filter(|_| listed) {
                for (device, share) in grant.gpus.amounts() {
                    let sum = least.entry(device.id.clone()).or_default();
                    *sum = Milli(sum.0 + share.compute.0);
                }
            }
        }
        for (device, compute) in least {
            assert!(self.allocations.allocated(&device).compute >= compute, "{device} is forgotten");
        }
    }

    /// What the containers have, the records, and kubelet's checkpoint agree.
    pub(super) fn check(&self) {
        let keys = Keys::default();
        let corrections = self.allocations.corrections(&keys);
        let view = self.allocations.view();
        let mut truth = Vec::new();
        for subject in self.subjects.all.iter().filter(|subject| !subject.over) {
            let (pod, placed) = (&subject.pod, subject.placed.as_ref().expect("nobody else runs"));
            let shown = view.iter().find(|v| v.pod.uid == pod.uid).expect("a pod that runs is known");
            let lasting = pod.request.containers.iter().any(|c| c.kind != ContainerKind::Init);
            // an init container is on no list: after a restart only its record tells what it had
            let init = pod.request.containers.iter().any(|c| c.kind == ContainerKind::Init);
            if subject.lost && init && pod.record.is_none() {
                continue;
            }
            for container in &shown.containers {
                let devices: Vec<DeviceId> = container.grant.gpus.ids().cloned().collect();
                let key = (pod.reference.clone(), container.grant.container.clone());
                assert_eq!(self.given.get(&key), Some(&devices), "environment and truth of {key:?}");
                let own = placed.limit;
                if !self.trouble.silent {
                    assert_eq!(self.ceilings.get(&key), Some(&own), "limits of {key:?}");
                }
                let core = self.kubelet.held[&key].get(&Resource::Core).cloned().unwrap_or_default();
                if container.grant.kind != ContainerKind::Init && !core.is_empty() {
                    let holding = self.allocations.holding(&Ids::new(core));
                    let held = |name: &ContainerName| holding.iter().find(|held| held.key.container == *name);
                    assert!(holding.iter().all(|held| held.key.pod == pod.uid), "kubelet's ids are one pod's");
                    let limit = held(&container.grant.container).map(|held| held.limit);
                    assert_eq!(limit, Some(own), "limits at its start");
                }
            }
            truth.push(Plan { grants: shown.containers.iter().map(|c| c.grant.clone()).collect() });
            let correction = corrections.iter().find(|c| c.uid == pod.uid);
            let mut annotations = pod.record.as_ref().map(|r| annotation::write(r, &keys)).unwrap_or_default();
            annotations.insert(keys.gpu_assigned.clone(), pod.confirmed.to_string());
            annotations.extend(correction.map(|c| c.annotations.clone()).unwrap_or_default());
            assert!(!lasting || annotation::confirmed(&annotations, &keys), "confirmed");
            match annotation::read(&annotations, &keys, &pod.request) {
                Record::Placed(placement) => assert_eq!(Some(&placement.plan), truth.last(), "record and truth"),
                other => panic!("{other:?}"),
            }
            if !self.trouble.silent {
                assert_eq!(truth.last(), Some(&placed.plan), "as the extender placed it");
            }
        }
        // guesses for pods that fail between their own calls can leave the answer of a pod of the same shape on the
        // wrong side of an exchange, and so can a plugin that restarted and does not know its guesses; that is
        // recorded as it is, which is what the checks above require
        let guessed = self.trouble.silent && (self.trouble.rejects || self.trouble.restarts);
        assert!(guessed || fits(truth.iter()), "no card is given twice");
    }
}
