//! The ids of each resource. Pure: a profile and cards in, ids out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kerf::device::Health;
use kerf_proto::deviceplugin::{self, NumaNode, TopologyInfo};

use crate::device::backend::{HostDevice, Part};
use crate::device::cards::Cards;
use crate::offer::contract::{Monitoring, Naming, Profile};

/// The id of a resource that shows all cards.
pub const ALL: &str = "all";

/// What one id stands for.
#[derive(Clone, Debug, PartialEq)]
pub struct Unit {
    /// The device; of a monitoring resource all of them.
    pub hosts: Vec<Arc<HostDevice>>,
    /// Which share of it, from zero.
    pub share: u32,
}

impl Unit {
    /// The device that decides where the id belongs; none on a node without cards.
    pub fn host(&self) -> Option<&HostDevice> {
        self.hosts.first().map(AsRef::as_ref)
    }

    /// Whether it may be given out.
    pub fn healthy(&self) -> bool {
        self.hosts.iter().any(|host| host.device.usable())
    }
}

/// The ids of one resource.
pub type Pool = BTreeMap<String, Unit>;

/// Every resource of a profile.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pools {
    /// By full name.
    pub pools: BTreeMap<String, Pool>,
    /// Why devices of the node are not offered.
    pub refusals: BTreeSet<String>,
}

/// Whether a resource only shows cards, all of them, and gives no share of any.
pub fn shows_all(pool: &Pool) -> bool {
    pool.contains_key(ALL)
}

/// The longest name of a resource after its domain.
const MAX_NAME: usize = 63;

/// What `profile` makes of `cards`.
pub fn pools(profile: &Profile, cards: &Cards) -> Pools {
    let mut made = Pools::default();
    let hosts: Vec<Arc<HostDevice>> = cards.hosts().cloned().map(Arc::new).collect();
    let mut served: Vec<Arc<HostDevice>> = Vec::new();
    for host in &hosts {
        match profile.filter.refusal(host) {
            Some(refusal) => drop(made.refusals.insert(refusal)),
            None => served.push(Arc::clone(host)),
        }
    }
    let layouts: BTreeSet<&str> = served.iter().map(|host| &*host.origin.layout).collect();
    let mixed = matches!(profile.naming, Naming::Single(_)) && layouts.len() > 1;
    if mixed {
        let layouts: Vec<_> = layouts.into_iter().collect();
        made.refusals.insert(format!("devices of several layouts ({}) cannot go by one name", layouts.join(", ")));
    }
    for host in served.iter().filter(|_| !mixed) {
        match name(&profile.naming, host) {
            Ok(resource) => {
                let pool = made.pools.entry(resource).or_default();
                for share in 0..profile.replicas {
                    let (id, name) = (host.device.id.as_str(), &*host.origin.name);
                    let id = profile.ids.id(id, name, share, profile.replicas);
                    pool.insert(id, Unit { hosts: vec![Arc::clone(host)], share });
                }
            }
            Err(refusal) => drop(made.refusals.insert(refusal)),
        }
    }
    if let Some(monitoring) = &profile.monitoring {
        for host in &served {
            let resource = match monitoring {
                Monitoring::Single(name) => name.clone(),
                Monitoring::Split(domain) => format!("{domain}/{}_monitoring", host.origin.driver),
            };
            let pool = made.pools.entry(resource).or_default();
            let all = pool.entry(ALL.to_owned()).or_insert_with(|| Unit { hosts: Vec::new(), share: 0 });
            all.hosts.push(Arc::clone(host));
        }
    }
    made
}

fn name(naming: &Naming, host: &HostDevice) -> Result<String, String> {
    let origin = &host.origin;
    let name = match naming {
        Naming::Single(name) => name.clone(),
        Naming::Layout { domain, plain } if origin.layout.is_empty() => format!("{domain}/{plain}"),
        Naming::Layout { domain, .. } => format!("{domain}/{}", origin.layout),
        Naming::Driver(domain) => format!("{domain}/{}", origin.driver),
        Naming::Instance { whole, prefix } => match &origin.part {
            Part::Instance { profile, .. } if profile.is_empty() => {
                return Err(format!("{}: the profile of the instance is not known", host.subject()));
            }
            Part::Instance { profile, .. } => format!("{prefix}{}", profile.replace('+', ".")),
            _ => whole.clone(),
        },
    };
    let own = name.rsplit('/').next().unwrap_or_default();
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if own.is_empty() || own.len() > MAX_NAME || !own.chars().all(legal) {
        return Err(format!("{}: {name:?} is no name of a resource", host.subject()));
    }
    Ok(name)
}

/// What ListAndWatch sends of a pool. `numa`: with each card's NUMA node.
pub fn list(pool: &Pool, numa: bool) -> Vec<deviceplugin::Device> {
    let device = |(id, unit): (&String, &Unit)| {
        let health = if unit.healthy() { deviceplugin::HEALTHY } else { deviceplugin::UNHEALTHY };
        let single = unit.hosts.len() == 1 && numa;
        let node = unit.host().filter(|_| single && id != ALL).and_then(|host| host.device.numa);
        deviceplugin::Device {
            id: id.clone(),
            health: health.to_owned(),
            topology: node.map(|node| TopologyInfo { nodes: vec![NumaNode { id: node.into() }] }),
        }
    };
    pool.iter().map(device).collect()
}

/// Whether every device that an id stands for is ill or gone.
pub fn ill(unit: &Unit) -> bool {
    unit.hosts.iter().all(|host| host.device.health == Health::Unhealthy)
}
