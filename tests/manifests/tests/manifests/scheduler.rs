//! kube-scheduler's configurations: they name the extender's routes and resources.

use std::collections::BTreeSet;

use kerf::annotation::Keys;
use kerf_extender::verb::Verb;
use serde_json::Value;

use crate::kinds::SchedulerConfiguration;
use crate::reading::{documents, only, strict, text};
use crate::{extender, extender_args};

/// The files, and the place of the extender that they call.
fn configurations() -> Vec<(String, Value, &'static str)> {
    let remote = documents("manifests/scheduler-config").into_iter().map(|(name, value)| (name, value, REMOTE));
    let own = documents("manifests/base").into_iter().map(|(name, value)| (name, value, "127.0.0.1"));
    remote.chain(own).filter(|(_, value, _)| value["kind"] == "KubeSchedulerConfiguration").collect()
}

const REMOTE: &str = "kerf-extender.kerf-system.svc";

#[test]
fn scheduler_configurations_name_the_extenders_routes_and_resources() {
    let keys = Keys::default();
    let args = extender_args(&extender());
    assert_eq!(configurations().len(), 3);
    for (name, value, host) in configurations() {
        let config: SchedulerConfiguration = strict(&name, &value);
        assert_eq!(config.client_connection.is_some(), host == REMOTE);
        assert_eq!(config.api_version, "kubescheduler.config.k8s.io/v1");
        let extender = only(config.extenders);
        let url = format!("http://{host}:{}/scheduler", args.ports.listen.port());
        assert_eq!(extender.url_prefix, url);
        assert!(!extender.enable_https && !extender.ignorable);
        assert_eq!(extender.http_timeout, format!("{}s", args.scheduler_timeout_ms / 1000));
        assert_eq!(args.scheduler_timeout_ms % 1000, 0);
        let filter = Some(extender.filter_verb.clone());
        let (prioritize, preempt) = (extender.prioritize_verb.clone(), extender.preempt_verb.clone());
        let verbs = [filter, prioritize, preempt, extender.bind_verb.clone()];
        for verb in verbs.iter().flatten() {
            let route = format!("/scheduler/{verb}");
            assert!(Verb::ALL.iter().any(|verb| verb.route() == route), "{name}: {verb}");
        }
        let legacy = extender.filter_verb == "predicates";
        assert_eq!(legacy, name.ends_with("legacy.yaml"));
        // whole Node objects are sent there, so fewer is better
        assert_eq!(config.percentage_of_nodes_to_score, (!legacy).then_some(100));
        if legacy {
            assert!(verbs.iter().skip(1).all(Option::is_none) && !extender.node_cache_capable);
        } else {
            assert!(extender.node_cache_capable && extender.weight.is_some_and(|weight| weight > 0));
            assert_eq!(verbs.map(Option::unwrap), ["filter", "prioritize", "preempt", "bind"]);
        }
        let managed: Vec<&str> = extender.managed_resources.iter().map(|resource| &*resource.name).collect();
        assert_eq!(managed, [&*keys.core, &*keys.memory]);
        assert!(extender.managed_resources.iter().all(|resource| !resource.ignored_by_scheduler));
    }
}

#[test]
fn the_resources_that_can_be_uncommented_are_those_that_the_extender_knows() {
    let known = extender_args(&extender()).share_resources;
    let names = known.to_string();
    let exact: BTreeSet<&str> = names.split(',').filter(|name| !name.ends_with('*')).collect();
    for (name, ..) in configurations() {
        let written = text(&name);
        let commented = written.lines().filter_map(|line| line.trim().strip_prefix("# - name: "));
        let commented: BTreeSet<&str> = commented.collect();
        assert!(commented.iter().all(|name| known.contains(name)), "{name}: {commented:?}");
        assert!(exact.is_subset(&commented), "{name}: {exact:?}");
        // uncommented, it is still a valid configuration
        let block = |line: &str| ["- name: ", "  ignoredByScheduler: "].iter().any(|start| line.starts_with(start));
        let uncommented = written.lines().map(|line| match line.strip_prefix("      # ") {
            Some(rest) if block(rest) => format!("      {rest}\n"),
            _ => format!("{line}\n"),
        });
        let value: Value = serde_saphyr::from_str(&uncommented.collect::<String>()).unwrap();
        let config: SchedulerConfiguration = strict(&name, &value);
        assert_eq!(only(config.extenders).managed_resources.len(), 2 + commented.len());
    }
}
