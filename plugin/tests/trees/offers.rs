//! Which resources and ids each profile makes of a tree.

use std::collections::BTreeMap;

use clap::Parser;
use kerf_plugin::config::{Args, Config};
use kerf_plugin::testing::cards::Cards;
use kerf_plugin::testing::contract::Contract;
use kerf_plugin::testing::encode;
use kerf_plugin::testing::hand_over::{Given, Refusal};
use kerf_plugin::testing::{Offered, Offers};
use kerf_plugin::two_dashes;
use kerf_proto::deviceplugin::ContainerAllocateResponse;
use serde_json::json;

use crate::forest::Forest;

/// The first contract of these flags, on a tree.
pub fn contract(forest: &Forest, flags: &[&str]) -> Contract {
    config(forest, flags).contracts.remove(0)
}

pub fn config(forest: &Forest, flags: &[&str]) -> Config {
    let root = |name: &str| forest.path().join(name).display().to_string();
    let roots = [
        format!("--sys-root={}", root("sys")),
        format!("--dev-root={}", root("dev")),
        format!("--proc-root={}", root("proc")),
        format!("--cdi-dir={}", root("cdi")),
        "--nvml-library=/nonexistent/libnvidia-ml.so.1".to_owned(),
    ];
    let words =
        ["kerf-plugin".to_owned()].into_iter().chain(roots).chain(flags.iter().map(|flag| (*flag).to_owned()));
    Config::try_from(Args::try_parse_from(two_dashes(words.map(Into::into))).unwrap()).unwrap()
}

pub fn made(contract: &Contract) -> Offers {
    let found = contract.backend.open().discover().unwrap_or_default();
    contract.offers(&Cards::default().discovered(found))
}

/// Ids by resource.
fn counts(forest: &Forest, flags: &[&str]) -> BTreeMap<String, usize> {
    made(&contract(forest, flags)).resources.into_iter().map(|(name, it)| (name, it.pool.ids().count())).collect()
}

fn resources<const N: usize>(wanted: [(&str, usize); N]) -> BTreeMap<String, usize> {
    wanted.map(|(name, count)| (name.to_owned(), count)).into()
}

fn allocate(contract: &Contract, resource: &str, ids: &[&str]) -> Result<ContainerAllocateResponse, Refusal> {
    let ids: Vec<String> = ids.iter().map(|id| (*id).to_owned()).collect();
    answer(&made(contract).resources[resource], &ids)
}

pub fn answer(Offered { offer, pool }: &Offered, ids: &[String]) -> Result<ContainerAllocateResponse, Refusal> {
    let given = Given::by_ids(pool, offer.one_share, ids)?;
    Ok(encode::answer(offer.hand_over.edits(&given)))
}

fn devices(response: &ContainerAllocateResponse) -> Vec<(&str, &str)> {
    response.devices.iter().map(|spec| (spec.host_path.as_str(), spec.permissions.as_str())).collect()
}

#[test]
fn amds_resources_are_one_or_one_for_each_layout() {
    assert_eq!(counts(&Forest::named("a"), &["-profile=amd"]), resources([("amd.com/gpu", 1)]));
    assert_eq!(counts(&Forest::named("b"), &["-profile=amd"]), resources([("amd.com/gpu", 32)]));
    let mixed = ["-profile=amd", "-resource_naming_strategy=mixed", "-pulse=10", "-logtostderr=true", "-v=5"];
    assert_eq!(counts(&Forest::named("b"), &mixed), resources([("amd.com/cpx_nps1", 32)]));
    assert_eq!(counts(&Forest::named("c"), &mixed), resources([("amd.com/gpu", 8)]));
    let both = Forest::described(json!({ "cards": [
        { "vendor": "amd", "address": "0000:0a:00.0", "card": 0, "render": 128, "modes": ["SPX", "NPS1"] },
        { "vendor": "amd", "address": "0000:0b:00.0", "card": 1, "render": 129, "modes": ["CPX", "NPS4"],
          "partitions": 2, "xcp": 1 },
    ] }));
    assert_eq!(counts(&both, &mixed), resources([("amd.com/cpx_nps4", 2), ("amd.com/spx_nps1", 1)]));
    let single = made(&contract(&both, &["-profile=amd"]));
    assert!(single.resources.is_empty());
    // each is told of
    assert_eq!(single.refusals.len(), 3);
    assert!(single.refusals.first().unwrap().to_string().contains("cpx_nps4, spx_nps1"));
}

/// A container still has a partition of the old layout when its GPU is divided otherwise.
#[test]
fn what_is_left_of_an_old_layout_takes_nothing_from_the_new_one() {
    let tree = |mode: &str, partitions: u32| {
        let card = |n: u32| {
            json!({ "vendor": "amd", "address": format!("0000:0{n}:00.0"), "card": n * 10, "render": 128 + n * 10,
            "modes": [mode, "NPS1"], "partitions": partitions, "xcp": n * 10 })
        };
        Forest::described(json!({ "cards": [card(0), card(1)] }))
    };
    let (old, new) = (tree("CPX", 2), tree("SPX", 1));
    let discover = |forest: &Forest| contract(forest, &["-profile=amd"]).backend.open().discover().unwrap();
    let amd = contract(&new, &["-profile=amd"]);
    let cards = Cards::default().discovered(discover(&old)).discovered(discover(&new));
    let offers = amd.offers(&cards);
    assert!(offers.refusals.is_empty(), "{:?}", offers.refusals);
    // two that may be taken, and the two that end with their containers
    assert_eq!(offers.resources["amd.com/gpu"].pool.ids().count(), 4);
    // one that is away counts as little: it may come back divided as the others are
    let away = Cards::default().discovered(discover(&old)).discovered(discover(&new)[..1].to_vec());
    assert!(amd.offers(&away).refusals.is_empty());
}

#[test]
fn a_layout_that_cannot_be_read_now_takes_its_own_card_alone() {
    let card = |n: u32| {
        json!({ "vendor": "amd", "address": format!("0000:0{n}:00.0"), "card": n, "render": 128 + n,
        "modes": ["SPX", "NPS1"] })
    };
    let forest = Forest::described(json!({ "cards": [card(0), card(1)] }));
    let file = forest.path().join("sys/devices/pci0000:00/0000:01:00.0/current_memory_partition");
    std::fs::remove_file(&file).unwrap();
    std::fs::create_dir(&file).unwrap();
    assert_eq!(counts(&forest, &["-profile=amd"]), resources([("amd.com/gpu", 1)]));
    let scan = forest.scan(kerf_plugin::testing::backend::Vendor::Amd);
    assert_eq!(crate::forest::left_out(&scan), [("0000:01:00.0".to_owned(), "unreadable-file")]);
}

#[test]
fn amds_containers_get_the_compute_node_once_and_their_cards_nodes() {
    let forest = Forest::named("b");
    let amd = contract(&forest, &["-profile=amd"]);
    let answer = allocate(&amd, "amd.com/gpu", &["0000:0a:00.0", "amdgpu_xcp_1"]).unwrap();
    let nodes = ["/dev/kfd", "/dev/dri/card1", "/dev/dri/renderD128", "/dev/dri/card2", "/dev/dri/renderD129"];
    assert_eq!(devices(&answer), nodes.map(|node| (node, "rw")));
    assert!(answer.envs.is_empty() && answer.mounts.is_empty() && answer.cdi_devices.is_empty());
    let unknown = allocate(&amd, "amd.com/gpu", &["0000:ff:00.0"]).unwrap_err();
    assert_eq!(unknown.code(), "unknown-id");
    let shared = contract(&forest, &["-profile=amd", "--amd-replicas=4"]);
    assert_eq!(made(&shared).resources["amd.com/gpu"].pool.ids().count(), 128);
    let answer = allocate(&shared, "amd.com/gpu", &["amdgpu_xcp_1::0", "amdgpu_xcp_1::3"]).unwrap();
    assert_eq!(devices(&answer).len(), 3);
}

#[test]
fn intels_resources_follow_the_driver() {
    let forest = Forest::named("e");
    let with = |flags: &[&str]| counts(&forest, &[&["-profile=intel"], flags].concat());
    let (i915, xe) = ("gpu.intel.com/i915", "gpu.intel.com/xe");
    assert_eq!(with(&[]), resources([(i915, 1), (xe, 1)]));
    assert_eq!(with(&["-shared-dev-num=13"]), resources([(i915, 13), (xe, 13)]));
    assert_eq!(
        with(&["-shared-dev-num=2", "-enable-monitoring"]),
        resources([(i915, 2), ("gpu.intel.com/monitoring", 1), (xe, 2)])
    );
    assert_eq!(
        with(&["-enable-monitoring=true", "-monitoring-mode=split"]),
        resources([(i915, 1), ("gpu.intel.com/i915_monitoring", 1), (xe, 1), ("gpu.intel.com/xe_monitoring", 1)])
    );
    assert_eq!(with(&["-allow-ids=0x9a48"]), resources([(xe, 1)]));
    assert_eq!(with(&["-allow-ids", "0x9a48, 0x9a49"]), resources([(i915, 1), (xe, 1)]));
    assert_eq!(with(&["-deny-ids=0x9a48"]), resources([(i915, 1)]));
    let denied = made(&contract(&forest, &["-profile=intel", "-deny-ids=0x9a48"]));
    assert!(denied.refusals.first().unwrap().to_string().contains("card1: PCI id 0x9a48"));
}

#[test]
fn intels_containers_get_nodes_links_and_a_name() {
    let forest = Forest::named("e");
    let intel = contract(&forest, &["-profile=intel", "-enable-monitoring"]);
    let answer = allocate(&intel, "gpu.intel.com/i915", &["card0-0"]).unwrap();
    assert_eq!(devices(&answer), [("/dev/dri/card0", "rw"), ("/dev/dri/renderD128", "rw")]);
    let mounts: Vec<_> = answer.mounts.iter().map(|mount| (mount.host_path.as_str(), mount.read_only)).collect();
    let by_path = ["card", "render"].map(|kind| format!("/dev/dri/by-path/pci-0042:01:02.0-{kind}"));
    assert_eq!(mounts, by_path.each_ref().map(|path| (path.as_str(), true)));
    assert_eq!(answer.cdi_devices[0].name, "intel.cdi.k8s.io/gpu=card0");
    let all = allocate(&intel, "gpu.intel.com/monitoring", &["all"]).unwrap();
    assert_eq!(all.devices.len(), 4);
    let mounts = |mode: &str| {
        let intel = contract(&forest, &["-profile=intel", &format!("-bypath={mode}")]);
        allocate(&intel, "gpu.intel.com/xe", &["card1-0"]).unwrap().mounts.len()
    };
    assert_eq!((mounts("none"), mounts("single"), mounts("all")), (0, 2, 1));
}

#[test]
fn deepomatics_ids_name_files_and_count_from_one() {
    let forest = Forest::named("g");
    let deepomatic = contract(&forest, &["-profile=deepomatic", "-gpu-duplication-factor=97"]);
    let pools = made(&deepomatic);
    let ids = &pools.resources["deepomatic.com/shared-gpu"].pool;
    assert_eq!(ids.ids().count(), 2 * 97);
    for id in ids.ids() {
        let (name, share) = id.split_once("-_-").unwrap();
        assert!(forest.path().join("dev").join(name).exists());
        assert!((1..=97).contains(&share.parse::<u32>().unwrap()));
    }
    let resource = "deepomatic.com/shared-gpu";
    let answer = allocate(&deepomatic, resource, &["nvidia0-_-3", "nvidia1-_-97", "nvidia0-_-1"]).unwrap();
    let nodes: Vec<_> = devices(&answer)
        .into_iter()
        .map(|(node, permissions)| {
            assert_eq!(permissions, "mrw");
            node
        })
        .collect();
    assert_eq!(
        nodes,
        ["/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools", "/dev/nvidia0", "/dev/nvidia1"]
    );
    let mount = &answer.mounts[0];
    let paths = (mount.host_path.as_str(), mount.container_path.as_str(), mount.read_only);
    assert_eq!(paths, ("/home/kubernetes/bin/nvidia", "/usr/local/nvidia", true));
    let named = contract(&forest, &["-profile=deepomatic", "-host-path=/h", "-container-path=/c"]);
    let mount = &allocate(&named, resource, &["nvidia0-_-100"]).unwrap().mounts[0].clone();
    assert_eq!((mount.host_path.as_str(), mount.container_path.as_str()), ("/h", "/c"));
    assert_eq!(allocate(&named, resource, &["nvidia0-_-101"]).unwrap_err().code(), "unknown-id");
    let fork = contract(&forest, &["-profile=deepomatic", "--containers-per-gpu=2"]);
    let id = "GPU-5c0d6a2e-94a5-4e4b-9d2f-0a1b2c3d4e5f";
    let answer = allocate(&fork, resource, &[&format!("{id}-_-0"), &format!("{id}-_-1")]).unwrap();
    assert_eq!(answer.envs["NVIDIA_VISIBLE_DEVICES"], id);
    assert!(answer.devices.is_empty());
}

#[test]
fn nvidias_ways_to_name_cards() {
    let forest = Forest::named("g");
    let id = "GPU-5c0d6a2e-94a5-4e4b-9d2f-0a1b2c3d4e5f";
    let get = |flags: &[&str]| {
        let nvidia = contract(&forest, &[&["-profile=nvidia"], flags].concat());
        allocate(&nvidia, "nvidia.com/gpu", &[id]).unwrap()
    };
    assert_eq!(get(&[]).envs["NVIDIA_VISIBLE_DEVICES"], id);
    assert_eq!(get(&["--device-id-strategy=index"]).envs["NVIDIA_VISIBLE_DEVICES"], "0");
    let mounts = get(&["--device-list-strategy=volume-mounts"]).mounts;
    assert_eq!(mounts[0].container_path, format!("/var/run/nvidia-container-devices/{id}"));
    let named = get(&["--device-list-strategy=cdi-cri"]).cdi_devices;
    assert_eq!(named[0].name, format!("nvidia.com/gpu={id}"));
    let noted = get(&["--device-list-strategy=cdi-annotations"]).annotations;
    assert_eq!(noted["cdi.k8s.io/kerf-plugin_cards"], format!("nvidia.com/gpu={id}"));
    let specs = get(&["--pass-device-specs"]);
    let nodes: Vec<_> = specs.devices.iter().map(|spec| spec.host_path.as_str()).collect();
    let wanted =
        ["/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools", "/dev/nvidia0", "/dev/nvidia-modeset"];
    assert_eq!(nodes, wanted);
}

#[test]
fn nvidias_shares_and_instances() {
    let cards = Forest::named("g");
    let shared = ["-profile=nvidia", "--nvidia-replicas=4"];
    assert_eq!(counts(&cards, &shared), resources([("nvidia.com/gpu", 8)]));
    let renamed = [&shared[..], &["--rename-by-default"]].concat();
    assert_eq!(counts(&cards, &renamed), resources([("nvidia.com/gpu.shared", 8)]));
    let one = contract(&cards, &[&shared[..], &["--fail-requests-greater-than-one"]].concat());
    let id = "GPU-5c0d6a2e-94a5-4e4b-9d2f-0a1b2c3d4e5f";
    let two = [format!("{id}::0"), format!("{id}::1")];
    assert_eq!(allocate(&one, "nvidia.com/gpu", &[&two[0], &two[1]]).unwrap_err().code(), "several-shares");
    let instances = Forest::named("f");
    assert_eq!(counts(&instances, &["-profile=nvidia"]), resources([]));
    let mixed = ["-profile=nvidia", "--mig-strategy=mixed", "--mig-profile=1g.10gb+me"];
    assert_eq!(counts(&instances, &mixed), resources([("nvidia.com/mig-1g.10gb.me", 2)]));
    assert_eq!(
        counts(&instances, &["-profile=nvidia", "--mig-strategy=single"]),
        resources([("nvidia.com/gpu", 2)])
    );
    let nameless = made(&contract(&instances, &["-profile=nvidia", "--mig-strategy=mixed"]));
    assert!(nameless.resources.is_empty() && nameless.refusals.len() == 2);
}

#[test]
fn numa_nodes_are_told_where_they_are_known() {
    let topology = |flags: &[&str]| {
        let pools = made(&contract(&Forest::named("e"), flags));
        let offered = pools.resources.values().next_back().unwrap();
        encode::devices(offered)
            .into_iter()
            .map(|device| device.topology.map(|t| t.nodes[0].id))
            .collect::<Vec<_>>()
    };
    assert_eq!(topology(&["-profile=intel"]), [Some(1)]);
    let unknown = Forest::described(json!({ "cards": [
        { "vendor": "amd", "address": "0000:19:00.0", "card": 0, "render": 128, "numa": -1 }] }));
    let pools = made(&contract(&unknown, &["-profile=amd"]));
    assert_eq!(encode::devices(&pools.resources["amd.com/gpu"])[0].topology, None);
}
