//! How GPU health is published: a condition of the Node that names the unhealthy GPUs, and an event when that
//! changes.
//!
//! ```text
//!   GPUs  --> [Verdict] (pure) --differs from the last one---> events, then the condition
//!                                                                 ^ again every few minutes, as a sign of life
//! ```
//!
//! The condition that the Node shows when the plugin starts is what a previous run published, so a restart repeats
//! no event. Events are written first: one may be written twice where the plugin ends between both, and none is
//! lost. A write without an answer is tried again under the same name, and changes closer together than a period
//! are published as one.

use std::collections::BTreeMap;

use kerf::ids::DeviceId;

use crate::api::{EventText, OTHER_DOMAIN};
use crate::device::backend::HostDevice;
use crate::device::cards::Cards;

/// At most so many GPUs are named; the rest is counted.
const NAMED: usize = 8;

/// The health of one backend's GPUs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// How many GPUs and partitions there are.
    all: usize,
    /// The unhealthy ones, with their names for people.
    ill: BTreeMap<DeviceId, String>,
    /// Why no GPU is given to pods, whatever the driver says of their health.
    withheld: Option<String>,
}

impl Verdict {
    /// `None` before the first GPU was found: there is nothing to judge.
    pub fn of(cards: &Cards) -> Option<Self> {
        let ill = cards.hosts().filter(|host| !host.device.usable());
        let ill = ill.map(|host| (host.device.id.clone(), name(host))).collect();
        let all = cards.hosts().count();
        (all > 0).then_some(Self { all, ill, withheld: None })
    }

    /// While pods of another resource domain hold GPUs, with this text as the reason, no GPU is given to pods. The
    /// GPUs' health is not shown then.
    #[must_use]
    pub fn withheld(self, why: Option<String>) -> Self {
        match why {
            Some(_) => Self { all: self.all, ill: BTreeMap::new(), withheld: why },
            None => self,
        }
    }

    /// Whether no GPU is unhealthy, and none withheld.
    pub fn healthy(&self) -> bool {
        self.ill.is_empty() && self.withheld.is_none()
    }

    pub fn reason(&self) -> &'static str {
        match (self.ill.len(), self.all) {
            _ if self.withheld.is_some() => OTHER_DOMAIN,
            (0, _) => "AllGPUsHealthy",
            (ill, all) if ill == all => "AllGPUsUnhealthy",
            _ => "SomeGPUsUnhealthy",
        }
    }

    pub fn message(&self) -> String {
        let Self { all, ill, withheld } = self;
        if let Some(why) = withheld {
            return why.clone();
        }
        match ill.len() {
            0 => format!("all {all} GPUs are healthy"),
            some => format!("{some} of {all} GPUs unhealthy: {}", names(ill.values(), ", ", "and")),
        }
    }

    /// The events for the change from `before`: GPUs that became unhealthy, and GPUs that recovered.
    pub fn since(&self, before: &Self) -> Vec<EventText> {
        let other = |one: &Self, other: &Self| {
            let new: Vec<&String> =
                one.ill.iter().filter(|(id, _)| !other.ill.contains_key(*id)).map(|(_, name)| name).collect();
            (!new.is_empty()).then(|| (new.len(), names(new.into_iter(), ", ", "and")))
        };
        let fell = other(self, before).map(|(count, names)| {
            let message = format!("{count} of {} GPUs became unhealthy: {names}; they take no new pods", self.all);
            EventText::warning("GPUUnhealthy", message)
        });
        let rose = other(before, self).map(|(count, names)| {
            EventText::normal("GPURecovered", format!("{count} of {} GPUs healthy again: {names}", self.all))
        });
        fell.into_iter().chain(rose).collect()
    }

    /// The events at the start, where the Node shows this condition (status and message) of a previous run.
    pub fn at_start(&self, shown: Option<(&str, &str)>) -> Vec<EventText> {
        match shown {
            Some((_, message)) if message == self.message() => Vec::new(),
            Some(("False", _)) if self.healthy() => {
                vec![EventText::normal("GPURecovered", format!("all {} GPUs healthy again", self.all))]
            }
            _ => self.since(&Self::default()),
        }
    }
}

fn name(host: &HostDevice) -> String {
    let (id, index) = (&host.device.id, host.device.index);
    match &*host.device.model {
        "" => format!("{id} (index {index})"),
        model => format!("{id} (index {index}, {model})"),
    }
}

/// The first few of `all`, with `between` between them, and after `word` how many more there are.
pub(super) fn names<T: AsRef<str>>(all: impl ExactSizeIterator<Item = T>, between: &str, word: &str) -> String {
    let rest = all.len().saturating_sub(NAMED);
    let more = if rest > 0 { format!(" {word} {rest} more") } else { String::new() };
    let named: Vec<String> = all.take(NAMED).map(|name| name.as_ref().to_owned()).collect();
    named.join(between) + &more
}

/// The type of the condition for the GPUs of `vcuda` or of a profile. Each has GPUs of its own, and two plugins on
/// one node must not write the same condition.
pub fn condition_type(offer: &str) -> String {
    match offer.split_at_checked(1) {
        Some((first, rest)) if offer != "vcuda" => format!("Kerf{}{rest}GPUsHealthy", first.to_ascii_uppercase()),
        _ => "KerfGPUsHealthy".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kerf::device::Health;
    use kerf::units::Mib;
    use proptest::prelude::*;

    use crate::vendor::simulated::file as simulated;

    fn cards(ill: &[bool]) -> Cards {
        let text: String = ill
            .iter()
            .enumerate()
            .map(|(at, ill)| {
                format!("[[gpu]]\nuuid = \"GPU-{at}\"\nmemory_mib = 1\nhealthy = {}\nmodel = \"M\"\n", !ill)
            })
            .collect();
        Cards::default().discovered(simulated::parse(&text).unwrap().devices)
    }

    fn verdict(ill: &[bool]) -> Verdict {
        Verdict::of(&cards(ill)).unwrap()
    }

    #[test]
    fn a_verdict_names_the_cards() {
        assert_eq!(Verdict::of(&Cards::default()), None);
        let well = verdict(&[false, false]);
        assert_eq!((well.reason(), well.message().as_str()), ("AllGPUsHealthy", "all 2 GPUs are healthy"));
        let one = verdict(&[false, true]);
        assert_eq!(one.reason(), "SomeGPUsUnhealthy");
        assert_eq!(one.message(), "1 of 2 GPUs unhealthy: GPU-1 (index 1, M)");
        let many = verdict(&[true; 12]);
        assert_eq!(many.reason(), "AllGPUsUnhealthy");
        assert!(many.message().ends_with("and 4 more"), "{}", many.message());
        let device = cards(&[true]).hosts().next().unwrap().device.clone();
        assert_eq!((device.health, device.memory), (Health::Unhealthy, Mib(1)));
    }

    #[test]
    fn what_changed_is_told_once() {
        let (well, first, second) = (verdict(&[false, false]), verdict(&[true, false]), verdict(&[false, true]));
        assert_eq!(well.since(&well), []);
        let told: Vec<_> = second.since(&first).into_iter().map(|t| (t.warning, t.reason, t.message)).collect();
        let expected = [
            (
                true,
                "GPUUnhealthy",
                "1 of 2 GPUs became unhealthy: GPU-1 (index 1, M); they take no new pods".to_owned(),
            ),
            (false, "GPURecovered", "1 of 2 GPUs healthy again: GPU-0 (index 0, M)".to_owned()),
        ];
        assert_eq!(told, expected);
    }

    #[test]
    fn a_restart_tells_only_what_the_node_does_not_show() {
        let (well, ill) = (verdict(&[false]), verdict(&[true]));
        assert_eq!(well.at_start(None), []);
        assert_eq!(well.at_start(Some(("True", "all 2 GPUs are healthy"))), [], "a card was added");
        assert_eq!(ill.at_start(Some(("False", &ill.message()))), []);
        assert_eq!(ill.at_start(None)[0].reason, "GPUUnhealthy");
        assert_eq!(ill.at_start(Some(("True", &well.message())))[0].reason, "GPUUnhealthy");
        assert_eq!(well.at_start(Some(("False", &ill.message())))[0].reason, "GPURecovered");
    }

    #[test]
    fn cards_that_are_withheld_are_not_told_as_ill() {
        let (well, ill) = (verdict(&[false, false]), verdict(&[true, true]));
        let withheld = ill.clone().withheld(Some("drain it".to_owned()));
        assert!(!withheld.healthy());
        assert_eq!((withheld.reason(), withheld.message().as_str()), ("OtherResourceDomain", "drain it"));
        assert_eq!(withheld.since(&well), []);
        assert_eq!(well.since(&withheld), []);
        assert_eq!(withheld.at_start(Some(("True", &well.message()))), []);
        assert_eq!(ill.clone().withheld(None), ill);
    }

    #[test]
    fn each_offer_has_a_condition_of_its_own() {
        let types = ["vcuda", "amd", "nvidia"].map(condition_type);
        assert_eq!(types, ["KerfGPUsHealthy", "KerfAmdGPUsHealthy", "KerfNvidiaGPUsHealthy"]);
    }

    proptest! {
        /// The sum of all events tells which GPUs are unhealthy.
        #[test]
        fn events_add_up(states in proptest::collection::vec(proptest::collection::vec(any::<bool>(), 3), 1..8)) {
            let mut before = verdict(&[false; 3]);
            let mut ill = std::collections::BTreeSet::new();
            for state in states {
                let now = verdict(&state);
                for event in now.since(&before) {
                    for id in (0..3).map(|at| format!("GPU-{at} ")).filter(|id| event.message.contains(id.as_str())) {
                        let news = if event.warning { ill.insert(id) } else { ill.remove(&id) };
                        prop_assert!(news, "told again");
                    }
                }
                let really: std::collections::BTreeSet<_> = (0..3).filter(|at| state[*at]).map(|at| format!("GPU-{at} ")).collect();
                prop_assert_eq!(&ill, &really);
                before = now;
            }
        }
    }
}
