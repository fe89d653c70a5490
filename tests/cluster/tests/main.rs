//! kerf's promises on real Kubernetes. A cluster serves many tests, one after the other, each in a namespace of its own; a
//! test that leaves a GPU in use has failed. The first cluster has kerf as its manifests install it, in pods; in the second
//! its programs are processes that tests pause and restart, and the cluster's own kube-scheduler calls the extender.
//! `cargo test -p kerf-cluster -- NAME` runs the tests whose name contains NAME.
//!
//! `KERF_KUBERNETES` says on which Kubernetes, as in `setup.sh`: the newest without it.
//!
//! Where the cluster's programs or root rights are missing, nothing runs and a message says so; with
//! `KERF_CLUSTER=required` that is an error, and with `KERF_CLUSTER=off` nothing is tried.

mod accepted;
mod batches;
mod binding;
mod burst;
mod chart;
mod counted;
mod events;
mod everyday;
mod examples;
mod failover;
mod faults;
mod freeing;
mod groups;
mod health;
mod helm;
mod invalid;
mod isolation;
mod metrics;
mod neighbours;
mod nodes;
mod placed;
mod policies;
mod profiles;
mod rights;
mod routing;
mod scheduling;
mod strangers;
mod support;
mod vendors;
mod viewer;
mod waiting;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use kerf::version::Version;
use kerf_cluster::cluster::{Cluster, Options, Way};
use kerf_cluster::place;
use kerf_cluster::programs::Programs;
use kerf_cluster::release;
use kerf_cluster::tools::Tools;
use support::stage::Stage;
use tokio::runtime::Runtime;

type Running<'a> = Pin<Box<dyn Future<Output = anyhow::Result<()>> + 'a>>;

/// A test and its name.
struct Test {
    name: &'static str,
    run: for<'a> fn(&'a Stage<'a>) -> Running<'a>,
}

macro_rules! tests {
    ($($room:ident: $($name:ident)*;)*) => {
        &[$($(Test {
            name: concat!(stringify!($room), "::", stringify!($name)),
            run: |stage| Box::pin($room::$name(stage)),
        }),*),*]
    };
}

/// On kerf's own pods.
const IN_PODS: &[Test] = tests! {
    examples: all_run_with_what_they_were_promised;
    burst: sixty_mixed_pods_at_once;
    accepted: every_overlay_and_component only_the_plugin_needs_privileges;
    routing: pods_that_ask_for_gpus_come_to_kerfs_scheduler what_has_no_containers_is_told_by_kubernetes every_way_to_install_is_accepted;
    everyday: kerfs_pods_can_be_looked_into kerfs_pods_are_deleted a_node_is_drained;
    viewer: four_questions_are_answered_by_who_may_only_look;
    freeing: every_end_frees_exactly_what_was_held a_restarted_container_keeps_its_card;
    faults: kubelet_killed kubelet_killed_after_pods_ended containerd_killed api_server_paused etcd_killed;
    failover: the_leaders_extender_is_killed the_leader_is_killed the_leaders_pod_is_deleted the_leaders_node_is_cut_off;
    // these take kerf away, and install it by its manifests again
    helm: a_release_is_installed_tested_and_taken_away an_upgrade_loses_nothing;
};

/// On processes of this machine.
const ON_PROCESSES: &[Test] = tests! {
    binding: a_wrong_uid_writes_nothing annotations_are_merged_with_the_binding only_kerf_writes_records
        a_plugin_changes_its_own_node_only a_plugin_writes_vendors_labels_where_it_is_let;
    counted: a_spoiled_annotation_frees_no_card containers_fit_in_any_order;
    invalid: requests_are_refused_when_they_are_written what_was_there_before_is_changed_in_all_else
        requests_stay_pending_with_the_rule_in_an_event;
    isolation: a_share_is_all_the_memory_that_a_program_finds a_breach_is_told_in_an_event;
    health: an_ill_card_takes_no_pod_until_it_recovers;
    events: a_pod_says_which_gpus_it_has;
    faults: extender_killed plugin_killed;
    scheduling: the_old_configuration_works_with_the_same_plugin preemption_frees_a_card_where_core_is_short
        preemption_frees_a_card_where_memory_is_short preemption_evicts_nobody_in_vain;
    batches: equal_pods_take_nodes_of_their_own;
    metrics: promtool_is_content queries_return_what_the_audit_finds;
    profiles: the_examples_find_their_cards partitions_and_instances_are_devices
        shares_of_two_cards_are_spread_or_packed an_ill_card_shows_in_its_pods_status;
    vendors: vcuda_is_served_from_amd_and_intel_cards;
    placed: kubelet_takes_the_cards_that_the_extender_chose;
    neighbours: a_process_that_dies_costs_the_other_nothing all_profiles_survive_a_kubelet_restart;
    nodes: a_node_is_removed_and_returns a_node_that_starts_takes_no_pod_early;
    policies: what_users_ask_for_is_fixed_once_a_pod_is_bound no_subresource_carries_an_annotation
        a_pod_that_asks_for_gpus_names_no_node
        a_plugin_changes_no_owners_and_no_finalizers the_extender_binds_with_a_record_only
        the_extenders_requests_have_a_place_in_the_queues;
    strangers: get_no_card_of_a_pod_that_waits;
    waiting: a_pause_during_the_bindings_costs_nobody_its_card the_end_of_a_lost_binding_is_told_to_who_waits
        a_nominated_pod_keeps_its_card a_pod_that_waits_for_its_volume_keeps_its_card;
    routing: pods_that_ask_for_gpus_are_told_of_kerfs_scheduler;
    chart: every_value_is_accepted a_second_kerf_is_refused;
    rights: no_more_than_is_used;
    // these restart the API server, which refuses all clients for a moment
    faults: plugin_token_refused;
    groups: two_do_not_lock_each_other;
};

/// Tests of what came with a version of Kubernetes, by name or its beginning. They are left out on an older one.
const SINCE: [(&str, &str); 5] = [
    ("routing::pods_that_ask_for_gpus_come_to_kerfs_scheduler", "1.36"),
    ("groups::", "1.36"),
    // their pods name no scheduler
    ("examples::", "1.36"),
    ("failover::", "1.36"),
    // with the examples, and nodes that only routed pods may use
    ("helm::a_release_", "1.36"),
];

/// The longest time of a test.
const LIMIT: Duration = Duration::from_secs(300);

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&String> = args.iter().filter(|arg| !arg.starts_with('-')).collect();
    let wanted = |test: &&Test| words.is_empty() || words.iter().any(|word| test.name.contains(word.as_str()));
    let chosen = [(Way::simulated(), IN_PODS), (Way::Processes, ON_PROCESSES)]
        .map(|(way, tests)| (way, tests.iter().filter(wanted).collect::<Vec<_>>()));
    let names: Vec<&str> = chosen.iter().flat_map(|(_, tests)| tests).map(|test| test.name).collect();
    if args.iter().any(|arg| arg == "--list") {
        names.iter().for_each(|name| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    if names.is_empty() {
        return ExitCode::SUCCESS;
    }
    let wish = std::env::var("KERF_CLUSTER").unwrap_or_default();
    if wish == "off" {
        println!("KERF_CLUSTER=off: {} tests on real Kubernetes are left out", names.len());
        return ExitCode::SUCCESS;
    }
    match Tools::find() {
        Ok(tools) => match run(&tools, &chosen) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                println!("{error:#}");
                ExitCode::FAILURE
            }
        },
        Err(error) => {
            println!("\n!!! NOT RUN: {} tests on real Kubernetes. {error:#}", names.len());
            names.iter().for_each(|name| println!("!!!   {name}"));
            println!("!!! With KERF_CLUSTER=required this is an error.\n");
            if wish == "required" { ExitCode::FAILURE } else { ExitCode::SUCCESS }
        }
    }
}

/// Runs the tests of each cluster, one cluster after the other.
fn run(tools: &Tools, chosen: &[(Way, Vec<&Test>)]) -> anyhow::Result<()> {
    let runtime = Runtime::new()?;
    let began = Instant::now();
    let programs = Programs::build(false)?;
    println!("{:6.1} s  kerf's programs", began.elapsed().as_secs_f64());
    let mut failed = Vec::new();
    for (number, (way, tests)) in chosen.iter().enumerate().filter(|(_, (_, tests))| !tests.is_empty()) {
        let log = "info,kerf_plugin=debug,kerf_extender=debug".to_owned();
        let options = Options { audit: true, log, way: way.clone(), ..Options::default() };
        let cluster = runtime.block_on(Cluster::up(tools, &programs, &options))?;
        let version = runtime.block_on(release::version(&cluster.client))?;
        println!("         Kubernetes {version}");
        let logs = place::base().with_extension(format!("logs-{}", number + 1));
        let names = on(&runtime, &known(version, tests)?, &cluster);
        cluster.down((!names.is_empty()).then_some(logs.as_path()))?;
        failed.extend(names.into_iter().map(|name| format!("{name} (logs: {})", logs.display())));
    }
    runtime.shutdown_timeout(Duration::from_secs(1));
    println!("{:6.1} s  all", began.elapsed().as_secs_f64());
    if failed.is_empty() { Ok(()) } else { Err(anyhow!("failed: {}", failed.join(", "))) }
}

/// Runs tests on a cluster; returns the names of those that failed.
fn on(runtime: &Runtime, tests: &[&Test], cluster: &Cluster) -> Vec<&'static str> {
    // kubelets, containers and timers are not ours: a failed test is tried once more, and that is always printed
    let mut failed: Vec<&Test> = tests.iter().copied().filter(|test| !passes(runtime, test, "", cluster)).collect();
    if !failed.is_empty() {
        let names: Vec<&str> = failed.iter().map(|test| test.name).collect();
        println!("!!! FAILED ONCE, and tried once more: {}", names.join(", "));
        failed.retain(|test| !passes(runtime, test, "::again", cluster));
    }
    failed.into_iter().map(|test| test.name).collect()
}

/// Those of the tests that this version has what they need for. The others are printed.
fn known<'a>(version: Version, chosen: &[&'a Test]) -> anyhow::Result<Vec<&'a Test>> {
    let mut known = Vec::new();
    for test in chosen {
        match SINCE.iter().find(|(name, _)| test.name.starts_with(name)) {
            Some((_, least)) if version < least.parse()? => {
                println!("         {} is left out: it needs Kubernetes {least}", test.name);
            }
            _ => known.push(*test),
        }
    }
    Ok(known)
}

/// Runs a test, and prints the result. `mark` makes its namespace's name different.
fn passes(runtime: &Runtime, test: &Test, mark: &str, cluster: &Cluster) -> bool {
    let began = Instant::now();
    let attempt = catch_unwind(AssertUnwindSafe(|| runtime.block_on(perform(test, mark, cluster))));
    let result = attempt.unwrap_or_else(|_| Err(anyhow!("panicked")));
    let seconds = began.elapsed().as_secs_f64();
    match &result {
        Ok(()) => println!("{seconds:6.1} s  {} ok", test.name),
        Err(error) => println!("{seconds:6.1} s  {} FAILED\n{error:#}\n", test.name),
    }
    result.is_ok()
}

async fn perform(test: &Test, mark: &str, cluster: &Cluster) -> anyhow::Result<()> {
    cluster.ready(Duration::from_secs(60)).await.context("before the test")?;
    let stage = Stage::new(cluster, &format!("{}{mark}", test.name)).await?;
    let limited = tokio::time::timeout(LIMIT, (test.run)(&stage)).await;
    let result = limited.context("takes too long").flatten();
    // the state at the time of a failure is worth more than a second error
    if result.is_err() {
        stage.report().await;
    }
    let cleared = stage.clear().await;
    result.and(cleared)
}
