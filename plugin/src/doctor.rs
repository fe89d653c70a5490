//! `kerf-plugin doctor`: what this machine has, what is left out and why, and what kubelet knows of it.
//!
//! It asks the same backends with the same flags as the plugin, changes nothing, and needs no API server. Exit
//! status: 0 no problem, 1 a problem (a GPU is unhealthy or left out, kubelet does not listen or does not know a
//! resource), 2 wrong usage, 3 no GPU at all.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use kerf::isolation::Isolation;
use kerf::terminal;
use kerf_proto::deviceplugin::KUBELET_SOCKET;
use kerf_proto::podresources::AllocatableResourcesRequest;
use kerf_proto::podresources::pod_resources_lister_client::PodResourcesListerClient;
use serde::Serialize;
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::base::socket::{MAX_MESSAGE_BYTES, dial};
use crate::config::Config;
use crate::device::backend::{BackendFactory, HostDevice};
use crate::device::cards::Cards;
use crate::device::scan::Remark;
use crate::isolation::limiter::{self, Copies};
use crate::offer::Offers;
use crate::vendor;

/// Exit status where there is a problem.
pub const PROBLEM: u8 = 1;
/// Exit status where there is no GPU.
pub const NO_CARDS: u8 = 3;
/// The profile whose shares are enforced.
const VCUDA: &str = "vcuda";
/// A driver or kubelet that does not answer within this time hangs.
const PATIENCE: Duration = Duration::from_secs(15);

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// One for each driver that was asked.
    pub drivers: Vec<DriverReport>,
    /// By full name.
    pub resources: BTreeMap<String, ResourceReport>,
    pub kubelet: KubeletReport,
    /// The limiter's library on the host; `None` where it is used for no GPU.
    pub limiter: Option<Copies>,
    /// All problems, in words. Programs know them by the key of earlier versions.
    #[serde(rename = "troubles")]
    pub problems: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DriverReport {
    /// The name of the backend.
    pub backend: String,
    /// Why it does not answer; `None` where it does.
    pub error: Option<String>,
    pub cards: Vec<CardReport>,
    /// Its remarks on devices, also on those that it leaves out.
    pub remarks: Vec<RemarkReport>,
}

/// One GPU or partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CardReport {
    id: String,
    name: String,
    kind: &'static str,
    driver: String,
    model: String,
    memory_mib: u64,
    numa: Option<u32>,
    health: &'static str,
    nodes: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RemarkReport {
    card: String,
    left_out: bool,
    /// Whether something is wrong.
    problem: bool,
    code: &'static str,
    why: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ResourceReport {
    /// The profile that offers it.
    pub profile: String,
    /// How many ids the GPUs found now have.
    pub offered: usize,
    /// How many ids kubelet knows; `None`: it does not know the resource.
    pub known: Option<usize>,
    /// Shares of each GPU, where the extender chooses the GPUs.
    pub placed: Option<u32>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct KubeletReport {
    /// Whether kubelet listens for device plugins; the error where it does not.
    pub registration: Option<String>,
    /// Why kubelet's list of resources cannot be read; `None` where it can.
    pub pod_resources: Option<String>,
}

impl Report {
    pub fn status(&self) -> u8 {
        if self.drivers.iter().all(|driver| driver.cards.is_empty()) {
            NO_CARDS
        } else if self.problems.is_empty() {
            0
        } else {
            PROBLEM
        }
    }

    /// For people: names and messages are the machine's, and a terminal does not obey them.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let mut say = |line: String| {
            text.push_str(&terminal::line(&line));
            text.push('\n');
        };
        for driver in &self.drivers {
            // why a driver does not answer is among the problems
            if driver.error.is_none() {
                say(format!("{}: {} GPUs or partitions", driver.backend, driver.cards.len()));
            }
            for card in &driver.cards {
                let numa = card.numa.map_or("?".to_owned(), |numa| numa.to_string());
                let CardReport { id, name, kind, driver, model, memory_mib, health, nodes, .. } = card;
                let (memory, numa, nodes) =
                    (format!("{memory_mib} MiB"), format!("NUMA node {numa}"), nodes.join(" "));
                // simulated GPUs have neither a driver nor device files
                let facts = [model, &memory, &numa, driver, &nodes].map(String::as_str);
                let facts: Vec<&str> = facts.into_iter().filter(|fact| !fact.is_empty()).collect();
                let id = if id == name { String::new() } else { format!(" ({id})") };
                say(format!("  {name}{id}: {health} {kind}, {}", facts.join(", ")));
            }
            for remark in &driver.remarks {
                let what = if remark.left_out { "left out" } else { "note" };
                say(format!("  {what}: {} [{}]: {}", remark.card, remark.code, remark.why));
            }
        }
        for (name, resource) in &self.resources {
            let known =
                resource.known.map_or("does not know it".to_owned(), |known| format!("knows {known} healthy"));
            let placed = resource
                .placed
                .map_or_else(String::new, |shares| format!("; placed by the extender, shares of a GPU: {shares}"));
            let ResourceReport { profile, offered, .. } = resource;
            say(format!("{name} ({profile}): {offered} offered, kubelet {known}{placed}"));
        }
        if let Some(limiter) = &self.limiter {
            say(format!("limiter: {limiter}"));
        }
        for problem in &self.problems {
            say(format!("problem: {problem}"));
        }
        if self.problems.is_empty() {
            say("no problem found".to_owned());
        }
        text
    }
}

/// Examines everything that `config` names.
pub async fn examine(config: &Config) -> Report {
    let mut report = Report::default();
    let vcuda = config.vcuda.iter().map(|_| (VCUDA, &config.backend, None));
    let contracts = config.contracts.iter().map(|contract| (contract.name, &contract.backend, Some(contract)));
    for (name, source, contract) in vcuda.chain(contracts) {
        let (driver, hosts) = ask(source.clone()).await;
        let problems = driver.remarks.iter().filter(|remark| remark.problem);
        let ill = driver.cards.iter().filter(|card| card.health != "healthy");
        report.problems.extend(driver.error.clone());
        report.problems.extend(problems.map(|remark| {
            let what = if remark.left_out { " is left out" } else { "" };
            format!("{}{what}: {}", remark.card, remark.why)
        }));
        report.problems.extend(ill.map(|card| format!("{} is {}", card.name, card.health)));
        report.drivers.push(driver);
        let limited =
            |host: &HostDevice| vendor::support(host.origin.vendor).enforced_by.contains(&Isolation::Limiter);
        if name == VCUDA && config.isolation.kinds.contains(&Isolation::Limiter) && hosts.iter().any(limited) {
            let copies = limiter::inspect(&config.isolation.state_dir);
            report.problems.extend(copies.faults.iter().map(|fault| format!("limiter: {fault}")));
            report.limiter = Some(copies);
        }
        let cards = Cards::default().discovered(hosts);
        let offers = match contract {
            Some(contract) => vec![contract.offers(&cards)],
            None => config.vcuda.iter().flatten().map(|offer| Offers::of_all(offer, &cards)).collect(),
        };
        for offers in offers {
            for (resource, it) in offers.resources {
                let placed = contract.filter(|contract| contract.placed && !it.offer.shows_all());
                let placed = placed.map(|contract| contract.replicas);
                let (profile, offered) = (name.to_owned(), it.pool.ids().count());
                report.resources.insert(resource, ResourceReport { profile, offered, known: None, placed });
            }
            report.problems.extend(offers.refusals.iter().map(Remark::to_string));
        }
    }
    kubelets(config, &mut report).await;
    report
}

async fn ask(source: BackendFactory) -> (DriverReport, Vec<HostDevice>) {
    let asked = tokio::task::spawn_blocking(move || {
        let backend = source.open();
        let found = backend.discover();
        (backend.name().to_owned(), found, backend.remarks())
    });
    let Ok(Ok((backend, found, remarks))) = timeout(PATIENCE, asked).await else {
        let error = Some("a driver does not answer".to_owned());
        return (DriverReport { error, ..DriverReport::default() }, Vec::new());
    };
    let remarks = remarks.into_iter().map(|remark| RemarkReport {
        problem: remark.is_problem(),
        code: remark.why.code(),
        why: remark.why.to_string(),
        card: remark.subject,
        left_out: remark.left_out,
    });
    let (hosts, error) = match found {
        Ok(hosts) => (hosts, None),
        Err(error) => (Vec::new(), Some(error.to_string())),
    };
    let cards = hosts.iter().map(card).collect();
    (DriverReport { backend, error, cards, remarks: remarks.collect() }, hosts)
}

fn card(host: &HostDevice) -> CardReport {
    let HostDevice { device, origin, nodes, control_nodes, .. } = host;
    CardReport {
        id: device.id.to_string(),
        name: if origin.name.is_empty() { device.id.to_string() } else { origin.name.to_string() },
        kind: origin.part.as_str(),
        driver: origin.driver.to_string(),
        model: device.model.to_string(),
        memory_mib: device.memory.0,
        numa: device.numa,
        health: device.health.as_str(),
        nodes: nodes.iter().chain(control_nodes).map(|node| node.display().to_string()).collect(),
    }
}

async fn kubelets(config: &Config, report: &mut Report) {
    let socket = config.device_plugins_dir.join(KUBELET_SOCKET);
    if let Err(error) = UnixStream::connect(&socket).await {
        let problem = format!("kubelet does not listen at {}: {error}", socket.display());
        report.kubelet.registration = Some(problem.clone());
        report.problems.push(problem);
    }
    let asked = timeout(PATIENCE, allocatable(&config.pod_resources_dir.join(KUBELET_SOCKET))).await;
    match asked.unwrap_or_else(|_| Err("no answer in time".to_owned())) {
        Ok(known) => {
            for (name, resource) in &mut report.resources {
                resource.known = known.get(name).copied();
                let problem = match resource.known {
                    None if resource.offered > 0 => format!("kubelet does not know {name}: does the plugin run?"),
                    Some(known) if known < resource.offered => {
                        format!("kubelet knows {known} of {} of {name}", resource.offered)
                    }
                    _ => continue,
                };
                report.problems.push(problem);
            }
        }
        Err(error) => {
            report.problems.push(format!("kubelet's pod resources: {error}"));
            report.kubelet.pod_resources = Some(error);
        }
    }
}

/// Ids by resource, as kubelet counts them.
async fn allocatable(socket: &Path) -> Result<BTreeMap<String, usize>, String> {
    let channel = dial(socket).await.map_err(|error| {
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
        format!("{}: {error}{cause}", socket.display())
    })?;
    let mut client = PodResourcesListerClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES);
    let answer = client.get_allocatable_resources(AllocatableResourcesRequest {}).await;
    let devices = answer.map_err(|status| status.message().to_owned())?.into_inner().devices;
    let mut known: BTreeMap<String, usize> = BTreeMap::new();
    for device in devices {
        *known.entry(device.resource_name).or_default() += device.device_ids.len();
    }
    Ok(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_driver_or_a_file_is_called_is_shown_and_not_obeyed() {
        let odd = "a\u{1b}[2J\nb".to_owned();
        let remark =
            RemarkReport { card: odd.clone(), left_out: true, problem: true, code: "code", why: odd.clone() };
        let card = CardReport {
            id: odd.clone() + "2",
            name: odd.clone(),
            kind: "GPU",
            driver: odd.clone(),
            model: odd.clone(),
            memory_mib: 1,
            numa: None,
            health: "healthy",
            nodes: vec![odd.clone()],
        };
        let alike = CardReport { id: odd.clone(), ..card.clone() };
        let answers = DriverReport { cards: vec![card, alike], remarks: vec![remark], ..DriverReport::default() };
        let report = Report { drivers: vec![answers], problems: vec![odd], ..Report::default() };
        let shown = r"a\u001b[2J\u000ab";
        let expected = [
            ": 2 GPUs or partitions".to_owned(),
            format!("  {shown} ({shown}2): healthy GPU, {shown}, 1 MiB, NUMA node ?, {shown}, {shown}"),
            format!("  {shown}: healthy GPU, {shown}, 1 MiB, NUMA node ?, {shown}, {shown}"),
            format!("  left out: {shown} [code]: {shown}"),
            format!("problem: {shown}"),
        ];
        assert_eq!(report.text().lines().collect::<Vec<_>>(), expected);
    }
}
