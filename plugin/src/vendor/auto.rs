//! One of several backends, the first that has GPUs: of the ways to find a vendor's GPUs, or of the vendors
//! (`--backend auto`).
//!
//! Better ones, which come first, are asked again at each discovery: what is used is what a restart would use, but
//! never the same GPUs under other ids, which could then be given twice. Of two ways to the same GPUs the second is for
//! hosts that do not have the first, such as a library: GPUs that the first says not to work are not offered by it
//! either. Once one has had GPUs, no later one takes its place while they are away. Of the vendors, none is taken before
//! a better one either as long as the machine shows that its GPUs may come, such as a driver that is being loaded, or a
//! library that does not fit it yet.
//!
//! The GPUs of one vendor are served: a program for one does not run on another's, and a share names no vendor. The
//! others are told as left out, and so is the graphics of a processor, which has no memory to share.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kerf::device::Health;
use kerf::ids::DeviceId;
use parking_lot::Mutex;

use crate::device::backend::{Backend, BackendError, BackendFactory, HostDevice, Usage, Vendor};
use crate::device::roots::Roots;
use crate::device::scan::{Remark, ScanIssue};
use crate::vendor::hidden::Hidden;
use crate::vendor::remarks::Remarks;

const NAME: &str = "auto";

/// A vendor's backend.
#[derive(Clone, Debug)]
pub struct Candidate {
    pub vendor: Vendor,
    /// Its value in `--backend`.
    pub name: &'static str,
    pub backend: BackendFactory,
    /// See [`awaited`](crate::vendor::support::Support::awaited).
    pub awaited: fn(&Roots) -> Option<String>,
}

/// The first of these, in this order, that has GPUs: all find the same ones.
pub fn first_of(backends: impl IntoIterator<Item = BackendFactory>) -> BackendFactory {
    BackendFactory::new(backends.into_iter().collect(), |backends: Vec<BackendFactory>| {
        Auto::new(Roots::default(), backends.into_iter().map(|backend| (backend.open(), None)))
    })
}

/// The GPUs of the first vendor that has some, in this order. `roots`: where the host's files are mounted.
pub fn of_vendors(roots: Roots, candidates: Vec<Candidate>) -> BackendFactory {
    BackendFactory::new((roots, candidates), |(roots, candidates): (Roots, Vec<Candidate>)| {
        Auto::new(roots, candidates.into_iter().map(|candidate| (candidate.backend.open(), Some(candidate))))
    })
}

struct Auto {
    roots: Roots,
    members: Vec<Member>,
    /// The member that is used.
    chosen: Mutex<Option<usize>>,
    /// The GPUs that it has had.
    known: Mutex<BTreeSet<DeviceId>>,
    /// The last member that the last discovery has asked.
    last: Mutex<usize>,
    hidden: Hidden,
    /// On GPUs that a member would serve.
    remarks: Remarks,
}

struct Member {
    backend: Arc<dyn Backend>,
    /// `None`: a way to find the same GPUs as the others.
    vendor: Option<Candidate>,
    /// Why it was last passed over, so that only news is logged.
    reason: Mutex<String>,
}

/// What a discovery comes to.
struct Decision {
    /// The member that is used or waited for; where there is none, their number.
    at: usize,
    used: bool,
    found: Result<Vec<HostDevice>, BackendError>,
    /// Graphics of the processor.
    integrated: Vec<HostDevice>,
    remarks: Vec<Remark>,
}

impl Member {
    fn name(&self) -> &'static str {
        self.vendor.as_ref().map_or_else(|| self.backend.name(), |vendor| vendor.name)
    }

    /// Its GPUs, and apart from them those that are not served.
    fn discover(&self) -> (Result<Vec<HostDevice>, BackendError>, Vec<HostDevice>) {
        match self.backend.discover() {
            Ok(devices) => {
                let apart = |host: &HostDevice| self.vendor.is_some() && host.origin.integrated;
                let (integrated, own) = devices.into_iter().partition(apart);
                (Ok(own), integrated)
            }
            Err(error) => (Err(error), Vec::new()),
        }
    }

    /// What may bring its GPUs although it shows none.
    fn awaited(&self, roots: &Roots) -> Option<String> {
        self.vendor.as_ref().and_then(|vendor| (vendor.awaited)(roots))
    }

    /// It is not used. `waits`: nor is any other.
    fn pass_over(&self, reason: &str, waits: bool) {
        let mut last = self.reason.lock();
        if *last != reason {
            let backend = self.name();
            if waits {
                tracing::warn!(backend, reason, "no backend chosen");
            } else {
                tracing::info!(backend, reason, "backend passed over");
            }
            reason.clone_into(&mut last);
        }
    }

    /// What is told of its GPUs while those of another vendor are served, or waited for.
    fn beside(&self, served: &'static str) -> Vec<Remark> {
        let Some(vendor) = self.vendor.as_ref().filter(|vendor| vendor.vendor != Vendor::Simulated) else {
            return Vec::new();
        };
        let (found, integrated) = self.discover();
        let found = found.unwrap_or_default();
        let broken =
            self.backend.remarks().into_iter().filter(|remark| remark.left_out).map(|remark| remark.subject);
        let others = found.iter().map(|host| host.subject().to_owned()).chain(broken);
        let why = ScanIssue::OtherVendor { served, own: vendor.name };
        let others = others.map(|subject| Remark { subject, left_out: true, why: why.clone() });
        others.chain(integrated.iter().map(|host| self.apart(host))).collect()
    }

    /// What is told of a GPU that is not served.
    fn apart(&self, host: &HostDevice) -> Remark {
        Remark { subject: host.subject().to_owned(), left_out: true, why: ScanIssue::Integrated(self.name()) }
    }
}

impl Auto {
    fn new(roots: Roots, members: impl Iterator<Item = (Arc<dyn Backend>, Option<Candidate>)>) -> Self {
        let member = |(backend, vendor)| Member { backend, vendor, reason: Mutex::default() };
        let (hidden, remarks) = (Hidden::default(), Remarks::default());
        let (chosen, known, last) = (Mutex::default(), Mutex::default(), Mutex::default());
        Self { roots, members: members.map(member).collect(), chosen, known, last, hidden, remarks }
    }

    /// The member to use now, where `before` was used until now.
    fn decide(&self, before: Option<usize>) -> Decision {
        let none = |reason| Err(BackendError::Unavailable { backend: NAME, reason });
        let (mut reasons, mut apart, mut remarks) = (Vec::new(), Vec::new(), Vec::new());
        for (at, member) in self.members.iter().enumerate() {
            let (found, integrated) = member.discover();
            remarks.extend(integrated.iter().map(|host| member.apart(host)));
            let reason = match &found {
                Ok(own) if own.is_empty() && integrated.is_empty() => Some("no GPUs".to_owned()),
                Ok(own) if own.is_empty() => Some("no GPUs but the processor's graphics".to_owned()),
                Ok(own) if member.vendor.is_none() && before.is_some_and(|before| at < before) => self.renamed(own),
                Ok(_) => None,
                Err(error) => Some(error.to_string()),
            };
            apart.extend(integrated);
            // one that had GPUs is used while they are away
            let Some(reason) = reason.filter(|_| before != Some(at)) else {
                return Decision { at, used: true, found, integrated: apart, remarks };
            };
            let way = member.vendor.is_none() && before.is_none();
            if way && !matches!(found, Err(BackendError::Missing { .. })) {
                return Decision { at, used: found.is_ok(), found, integrated: apart, remarks };
            }
            if let Some(sign) = member.awaited(&self.roots).filter(|_| before.is_none()) {
                let reason = format!(
                    "{reason}; waiting for its GPUs: {sign}. Not to wait, name another vendor in --backend"
                );
                member.pass_over(&reason, true);
                reasons.push(reason);
                let found = none(reasons.join("; "));
                return Decision { at, used: false, found, integrated: apart, remarks };
            }
            member.pass_over(&reason, false);
            reasons.push(reason);
        }
        let (at, found) = (self.members.len(), none(reasons.join("; ")));
        Decision { at, used: false, found, integrated: apart, remarks }
    }

    /// Why a better way to find the same GPUs is not taken up.
    fn renamed(&self, found: &[HostDevice]) -> Option<String> {
        let same = self.known.lock().iter().all(|id| found.iter().any(|host| host.device.id == *id));
        let why = "it has other ids for the GPUs than those that pods may hold by now; a restart of the plugin takes it up";
        (!same).then(|| why.to_owned())
    }

    fn member(&self) -> Option<&Member> {
        let chosen = *self.chosen.lock();
        self.members.get(chosen?)
    }

    /// The backend that is used.
    fn used(&self) -> Result<&dyn Backend, BackendError> {
        if self.member().is_none() {
            self.discover()?;
        }
        let none = || BackendError::Unavailable { backend: NAME, reason: "no GPUs".to_owned() };
        self.member().map(|member| member.backend.as_ref()).ok_or_else(none)
    }
}

impl Backend for Auto {
    fn name(&self) -> &'static str {
        self.member().map_or(NAME, |member| member.backend.name())
    }

    fn discover(&self) -> Result<Vec<HostDevice>, BackendError> {
        // not locked while a driver is asked, which may never answer
        let before = *self.chosen.lock();
        let Decision { at, used, found, integrated, mut remarks } = self.decide(before);
        if let Some(member) = self.members.get(at) {
            let served = member.name();
            remarks.extend(self.members.iter().skip(at + 1).flat_map(|member| member.beside(served)));
            if used && before != Some(at) {
                let devices = found.as_ref().map_or(0, Vec::len);
                tracing::info!(backend = served, devices, "backend chosen");
                member.reason.lock().clear();
                *self.chosen.lock() = Some(at);
            }
        }
        if let Ok(devices) = &found {
            self.known.lock().extend(devices.iter().map(|host| host.device.id.clone()));
        }
        remarks.sort_unstable();
        self.hidden.set(integrated.iter());
        self.remarks.take(NAME, remarks);
        *self.last.lock() = at;
        found
    }

    fn health(&self) -> Result<BTreeMap<DeviceId, Health>, BackendError> {
        Ok(self.hidden.health(self.used()?.health()?))
    }

    fn usage(&self) -> Result<Usage, BackendError> {
        Ok(self.hidden.usage(self.used()?.usage()?))
    }

    fn remarks(&self) -> Vec<Remark> {
        let last = *self.last.lock();
        let none = self.member().is_none();
        let asked = self.members.iter().enumerate().take(last + 1);
        // of several ways to find the same GPUs, those in use count
        let told = asked.filter(|(at, member)| none || *at == last || member.vendor.is_some());
        told.flat_map(|(_, member)| member.backend.remarks()).chain(self.remarks.all()).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use kerf::device::Device;
    use kerf::units::Mib;

    use super::*;
    use crate::device::backend::Origin;

    #[derive(Clone, Debug)]
    enum Answer {
        Gpus(Vec<HostDevice>),
        Away(&'static str),
        Missing(&'static str),
    }

    /// Gives its answers one after the other, and the last for ever.
    #[derive(Clone, Debug)]
    struct Script(&'static str, Arc<Mutex<VecDeque<Answer>>>);

    impl Backend for Script {
        fn name(&self) -> &'static str {
            self.0
        }

        fn discover(&self) -> Result<Vec<HostDevice>, BackendError> {
            let mut answers = self.1.lock();
            let next = if answers.len() > 1 { answers.pop_front() } else { answers.front().cloned() };
            match next.unwrap() {
                Answer::Gpus(hosts) => Ok(hosts),
                Answer::Missing(reason) => {
                    Err(BackendError::Missing { backend: self.0, reason: reason.to_owned() })
                }
                Answer::Away(reason) => {
                    Err(BackendError::Unavailable { backend: self.0, reason: reason.to_owned() })
                }
            }
        }
    }

    fn script(name: &'static str, answers: impl IntoIterator<Item = Answer>) -> BackendFactory {
        let answers = Arc::new(Mutex::new(answers.into_iter().collect()));
        BackendFactory::new(Script(name, answers), |script| script)
    }

    fn gpu(vendor: Vendor, id: &str) -> HostDevice {
        HostDevice::new(Device::new(id, 0, Mib(1024)), Origin { vendor, name: id.into(), ..Origin::default() })
    }

    fn graphics() -> HostDevice {
        let mut host = gpu(Vendor::Intel, "card0");
        host.origin.integrated = true;
        host
    }

    fn expected(vendor: Vendor, name: &'static str, backend: BackendFactory) -> Candidate {
        Candidate { vendor, name, backend, awaited: |_| Some("0000:3b:00.0 is on the PCI bus".to_owned()) }
    }

    fn unexpected(vendor: Vendor, name: &'static str, backend: BackendFactory) -> Candidate {
        Candidate { awaited: |_| None, ..expected(vendor, name, backend) }
    }

    fn ids(backend: &dyn Backend) -> Result<Vec<String>, String> {
        let found = backend.discover().map_err(|error| error.to_string())?;
        Ok(found.iter().map(|host| host.device.id.to_string()).collect())
    }

    fn told(backend: &dyn Backend) -> Vec<(String, &'static str, bool)> {
        let remarks = backend.remarks().into_iter();
        remarks.map(|remark| (remark.subject.clone(), remark.why.code(), remark.is_problem())).collect()
    }

    fn nvidia(answers: impl IntoIterator<Item = Answer>) -> BackendFactory {
        script("nvidia", answers)
    }

    fn card() -> Answer {
        Answer::Gpus(vec![gpu(Vendor::Nvidia, "GPU-a")])
    }

    fn amd() -> Candidate {
        let answer = Answer::Gpus(vec![gpu(Vendor::Amd, "0000:19:00.0")]);
        unexpected(Vendor::Amd, "amd", script("amd", [answer]))
    }

    #[test]
    fn a_better_vendor_that_comes_later_is_used_then() {
        for first in [Answer::Away("no library"), Answer::Gpus(Vec::new())] {
            let better = unexpected(Vendor::Nvidia, "nvidia", nvidia([first, card()]));
            let backend = of_vendors(Roots::default(), vec![better, amd()]).open();
            assert_eq!(ids(&*backend).unwrap(), ["0000:19:00.0"]);
            assert_eq!((backend.name(), ids(&*backend).unwrap()), ("amd", vec!["GPU-a".to_owned()]));
            assert_eq!(backend.name(), "nvidia");
            assert_eq!(told(&*backend), [("0000:19:00.0".to_owned(), "other-vendor", false)]);
        }
    }

    #[test]
    fn no_vendor_is_taken_before_a_better_one_that_may_come() {
        for first in [Answer::Away("versions do not fit"), Answer::Gpus(Vec::new())] {
            let better = expected(Vendor::Nvidia, "nvidia", nvidia([first.clone(), first.clone(), card()]));
            let backend = of_vendors(Roots::default(), vec![better, amd()]).open();
            let why = ids(&*backend).unwrap_err();
            for part in ["waiting for its GPUs: 0000:3b:00.0 is on the PCI bus", "--backend"] {
                assert!(why.contains(part), "{why}");
            }
            assert_eq!(backend.name(), "auto");
            assert_eq!(told(&*backend), [("0000:19:00.0".to_owned(), "other-vendor", false)]);
            assert!(ids(&*backend).is_err());
            assert_eq!(ids(&*backend).unwrap(), ["GPU-a"]);
        }
    }

    #[test]
    fn none_takes_the_place_of_one_whose_cards_are_away() {
        let better = unexpected(
            Vendor::Nvidia,
            "nvidia",
            nvidia([card(), Answer::Away("unloaded"), Answer::Gpus(Vec::new())]),
        );
        let backend = of_vendors(Roots::default(), vec![better, amd()]).open();
        assert_eq!(ids(&*backend).unwrap(), ["GPU-a"]);
        assert!(ids(&*backend).unwrap_err().contains("unloaded"));
        assert_eq!(ids(&*backend).unwrap(), Vec::<String>::new());
        assert_eq!(backend.name(), "nvidia");
    }

    #[test]
    fn the_processors_graphics_is_not_taken_and_disturbs_nothing() {
        let discrete = gpu(Vendor::Intel, "card1");
        let intel =
            |hosts: Vec<HostDevice>| unexpected(Vendor::Intel, "intel", script("intel", [Answer::Gpus(hosts)]));
        let alone = of_vendors(Roots::default(), vec![intel(vec![graphics()])]).open();
        assert!(ids(&*alone).unwrap_err().contains("no GPUs but the processor's graphics"));
        assert_eq!(told(&*alone), [("card0".to_owned(), "integrated", false)]);
        let beside = of_vendors(Roots::default(), vec![intel(vec![graphics(), discrete])]).open();
        assert_eq!(ids(&*beside).unwrap(), ["card1"]);
        assert_eq!(beside.health().unwrap().keys().map(|id| id.as_str()).collect::<Vec<_>>(), ["card1"]);
        assert_eq!(beside.usage().unwrap().gpus.len(), 1);
        let nvidia = unexpected(Vendor::Nvidia, "nvidia", nvidia([card()]));
        let mixed = of_vendors(Roots::default(), vec![nvidia, intel(vec![graphics()])]).open();
        assert_eq!(ids(&*mixed).unwrap(), ["GPU-a"]);
        assert_eq!(told(&*mixed), [("card0".to_owned(), "integrated", false)]);
    }

    #[test]
    fn of_two_ways_to_the_same_cards_the_better_is_taken_up_again() {
        let files = script("nvidia-files", [Answer::Gpus(vec![gpu(Vendor::Nvidia, "GPU-a")])]);
        let backend =
            first_of([nvidia([Answer::Missing("no library"), card(), Answer::Away("unloaded")]), files]).open();
        assert_eq!((ids(&*backend).unwrap(), backend.name()), (vec!["GPU-a".to_owned()], "nvidia-files"));
        assert_eq!((ids(&*backend).unwrap(), backend.name()), (vec!["GPU-a".to_owned()], "nvidia"));
        assert!(ids(&*backend).is_err());
        assert_eq!(told(&*backend), []);
    }

    #[test]
    fn the_same_cards_are_not_offered_under_other_ids_at_once() {
        let bare = script("nvidia-files", [Answer::Gpus(vec![gpu(Vendor::Nvidia, "nvidia0")])]);
        let backend = first_of([nvidia([Answer::Missing("no library"), card()]), bare]).open();
        for _ in 0..3 {
            assert_eq!((ids(&*backend).unwrap(), backend.name()), (vec!["nvidia0".to_owned()], "nvidia-files"));
        }
    }

    #[test]
    fn what_the_better_way_says_not_to_work_is_not_offered_by_the_other() {
        let files = || script("nvidia-files", [Answer::Gpus(vec![gpu(Vendor::Nvidia, "nvidia0")])]);
        let broken = first_of([nvidia([Answer::Away("versions do not fit"), card()]), files()]).open();
        assert!(ids(&*broken).unwrap_err().contains("versions do not fit"));
        assert_eq!((ids(&*broken).unwrap(), broken.name()), (vec!["GPU-a".to_owned()], "nvidia"));
        // it answers, and has left all out
        let none = first_of([nvidia([Answer::Gpus(Vec::new())]), files()]).open();
        for _ in 0..3 {
            assert_eq!((ids(&*none).unwrap(), none.name()), (Vec::new(), "nvidia"));
            assert_eq!(none.health().unwrap().len(), 0);
        }
        // which is found by files goes on while the library that came does not work
        let late = [Answer::Missing("no library"), Answer::Away("versions do not fit")];
        let late = first_of([nvidia(late), files()]).open();
        for _ in 0..3 {
            assert_eq!((ids(&*late).unwrap(), late.name()), (vec!["nvidia0".to_owned()], "nvidia-files"));
        }
    }
}
