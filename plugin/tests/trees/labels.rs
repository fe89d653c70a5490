//! Labels of the sample trees, as the vendors' labellers would write them there.

use std::collections::BTreeMap;

use clap::{Args as _, FromArgMatches as _, ValueEnum as _};
use kerf_plugin::testing::amd::flags::AmdLabel;
use kerf_plugin::testing::backend::{HostDevice, Vendor};
use kerf_plugin::testing::label::Labeller;
use kerf_plugin::testing::labels::wanted::{Style, Wanted};
use kerf_plugin::testing::nvidia::files::FilesOptions;
use kerf_plugin::testing::nvidia::flags::{MigStrategy, NvidiaArgs};
use kerf_plugin::testing::nvidia::labels as nvidia_labels;
use kerf_plugin::testing::scanner::Files as _;
use kerf_plugin::testing::support;
use serde_json::{Value, json};

use crate::forest::Forest;
use crate::offers::config;

type Map = BTreeMap<String, String>;

fn labels(hosts: &[HostDevice], vendor: Vendor, style: &Style) -> Map {
    let hosts: Vec<&HostDevice> = hosts.iter().collect();
    let wanted = Wanted::of(&hosts, style);
    assert!(wanted.vendors.keys().eq([&vendor]));
    let labels: Map =
        wanted.vendors[&vendor].iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    let prefixes = support(vendor).labels.as_ref().unwrap().prefixes;
    for key in labels.keys() {
        assert!(prefixes.iter().any(|prefix| key.starts_with(prefix)), "{key} is none that kerf would remove");
    }
    labels
}

fn of(forest: &Forest, vendor: Vendor, flags: &[&str]) -> Map {
    labels(
        &forest.scan(vendor).devices,
        vendor,
        &config(forest, &[&["--node-name=n"], flags].concat()).labels.style,
    )
}

fn map(expected: Value) -> Map {
    serde_json::from_value(expected).unwrap()
}

/// Labels whose keys begin with `prefix`, without it.
fn below(labels: &Map, prefix: &str) -> Map {
    labels.iter().filter_map(|(key, value)| Some((key.strip_prefix(prefix)?.to_owned(), value.clone()))).collect()
}

#[test]
fn a_single_amd_card_has_the_labellers_new_and_older_keys() {
    let labels = of(&Forest::named("a"), Vendor::Amd, &[]);
    let expected = json!({
        "device-id": "6860", "product-name": "Vega_10", "vram": "16G", "simd-count": "256", "cu-count": "64",
        "driver-version": "6.10.5", "driver-src-version": "B3E8FD0C6D6B1A7F4E2C9D1",
        "compute-partitioning-supported": "false", "memory-partitioning-supported": "false",
    });
    assert_eq!(below(&labels, "amd.com/gpu."), map(expected));
    let beta = json!({
        "device-id": "6860", "device-id.6860": "1", "product-name": "Vega_10", "product-name.Vega_10": "1",
        "vram": "16G", "vram.16G": "1", "simd-count": "256", "simd-count.256": "1", "cu-count": "64", "cu-count.64": "1",
    });
    assert_eq!(below(&labels, "beta.amd.com/gpu."), map(beta));
}

#[test]
fn firmware_is_labelled_where_it_is_asked_for() {
    let labels = of(&Forest::named("a"), Vendor::Amd, &["--amd-labels=firmware,vram"]);
    // ME 0x94, SDMA 0x197, SMC 0x001c2800, UVD 0x01571100
    let firmware = json!({ "ME.fw.148": "1", "SDMA0.fw.407": "1", "SMC.fw.1845248": "1", "UVD.fw.22483200": "1" });
    assert_eq!(below(&labels, "beta.amd.com/gpu.firmware."), map(firmware));
    assert_eq!(below(&labels, "amd.com/gpu."), map(json!({ "vram": "16G" })));
    assert_eq!(AmdLabel::value_variants().len(), 12);
}

#[test]
fn partitions_are_counted_by_partition_and_cards_by_card() {
    let labels = of(&Forest::named("b"), Vendor::Amd, &[]);
    let expected = json!({
        "family": "AI", "device-id": "74a2", "product-name": "AMD_Instinct_MI308X", "vram": "48G", "simd-count": "80",
        "cu-count": "20", "compute-memory-partition": "cpx_nps1", "compute-partitioning-supported": "true",
        "memory-partitioning-supported": "true",
    });
    assert_eq!(below(&labels, "amd.com/gpu."), map(expected));
    for (key, count) in [("vram.48G", "32"), ("cu-count.20", "32"), ("device-id.74a2", "8"), ("family.AI", "32")] {
        assert_eq!(labels[&format!("beta.amd.com/gpu.{key}")], count);
    }
    let hives = of(&Forest::named("c"), Vendor::Amd, &[]);
    assert_eq!(hives["amd.com/gpu.cu-count"], "104");
    assert_eq!(hives["beta.amd.com/gpu.vram.64G"], "8");
    // without memory banks there is no size to label
    let blind = of(&Forest::named("d"), Vendor::Amd, &[]);
    assert_eq!(blind["beta.amd.com/gpu.simd-count.152"], "63");
    assert!(!blind.keys().any(|key| key.contains("vram")));
}

#[test]
fn what_cards_do_not_share_is_counted_under_both_keys() {
    let forest = Forest::described(json!({ "cards": [
        { "vendor": "amd", "address": "0000:0a:00.0", "card": 0, "render": 128, "product": "Card (One)",
          "modes": ["SPX", "NPS1"] },
        { "vendor": "amd", "address": "0000:0b:00.0", "card": 1, "render": 129, "device": "0x74a1",
          "product": "a name that is far too long for the name of a label, for all it tells", "properties": { "simd_per_cu": 0 } },
    ] }));
    let labels = of(&forest, Vendor::Amd, &[]);
    for prefix in ["amd.com/gpu.", "beta.amd.com/gpu."] {
        let own = below(&labels, prefix);
        assert_eq!((own["device-id.6860"].as_str(), own["device-id.74a1"].as_str()), ("1", "1"));
        assert!(!own.contains_key("device-id"));
        assert_eq!(own["product-name.Card_One"], "1");
        assert_eq!(own["product-name.a_name_that_is_far_too_long_for_the_name_of_a"], "1");
    }
    assert_eq!(labels["amd.com/gpu.cu-count"], "64");
    assert!(!labels.contains_key("amd.com/gpu.compute-memory-partition"));
    assert_eq!(labels["amd.com/gpu.compute-partitioning-supported"], "true");
}

#[test]
fn intels_cards_have_the_labels_of_the_rules_and_of_the_labeller() {
    let labels = of(&Forest::named("e"), Vendor::Intel, &[]);
    let expected = json!({
        "device-id.0300-9a49.present": "true", "device-id.0300-9a49.count": "1",
        "device-id.0300-9a48.present": "true", "device-id.0300-9a48.count": "1",
        "device.count": "2", "millicores": "2000", "memory.max": "12884901888", "tiles": "2",
        "cards": "card0.card1", "gpu-numbers": "0.1", "numa-gpu-map": "0-0_1-1",
    });
    assert_eq!(below(&labels, "gpu.intel.com/"), map(expected));
}

#[test]
fn intels_memory_and_tiles_are_those_of_its_labeller() {
    let card = |n: u32, extra: Value| {
        let mut card = json!({ "vendor": "intel", "address": format!("0000:{n:02x}:00.0"), "card": n, "render": 128 + n,
            "driver": "i915", "device": "0x56c0" });
        card.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        card
    };
    let of_cards = |cards: Vec<Value>| of(&Forest::described(json!({ "cards": cards })), Vendor::Intel, &[]);
    let memory = |labels: &Map| labels.get("gpu.intel.com/memory.max").cloned();
    assert_eq!(memory(&of_cards(vec![card(0, json!({ "memory": 8086 }))])).as_deref(), Some("8086"));
    let tiles = of_cards(vec![card(0, json!({ "memory": 8000, "tiles": 2 }))]);
    assert_eq!((memory(&tiles).as_deref(), tiles["gpu.intel.com/tiles"].as_str()), (Some("16000"), "2"));
    let three = of_cards((0..3).map(|n| card(n, json!({ "driver": "xe", "memory": 8000, "tiles": 2 }))).collect());
    assert_eq!((memory(&three).as_deref(), three["gpu.intel.com/tiles"].as_str()), (Some("48000"), "6"));
    // a GPU that does not tell, and NUMA nodes that cannot exist
    let blind = of_cards(vec![card(0, json!({ "memory": 8000 })), card(1, json!({ "numa": 32768 }))]);
    assert_eq!(memory(&blind), None);
    assert!(!blind.contains_key("gpu.intel.com/numa-gpu-map"));
    let many = of_cards((0..27).map(|n| card(n, json!({ "numa": n / 14 }))).collect());
    let numbers = [&many["gpu.intel.com/gpu-numbers"], &many["gpu.intel.com/gpu-numbers2"]];
    assert_eq!((numbers[0].len(), &numbers[1][..1]), (62, "Z"), "{numbers:?}");
    assert!(many["gpu.intel.com/numa-gpu-map"].starts_with("0-0.1.10."), "{many:?}");
    assert_eq!(many["gpu.intel.com/millicores"], "27000");
}

#[test]
fn a_product_is_labelled_where_any_card_is_of_it() {
    let card = |n: u32, id: &str| json!({ "vendor": "intel", "address": format!("0000:0{n}:00.0"), "card": n, "render": 128 + n, "device": id });
    let class = |n: u32| (format!("sys/devices/pci0000:00/0000:0{n}:00.0/class"), "0x038000");
    let of_ids = |ids: [&str; 2]| {
        let cards: Vec<Value> = (0..).zip(ids).map(|(n, id)| card(n, id)).collect();
        let files: BTreeMap<String, &str> = [class(0), class(1)].into();
        of(&Forest::described(json!({ "cards": cards, "files": files })), Vendor::Intel, &[])
    };
    let flex = of_ids(["0x56c0", "0x56c0"]);
    assert_eq!(flex["gpu.intel.com/device-id.0380-56c0.count"], "2");
    assert_eq!((&*flex["gpu.intel.com/product"], &*flex["gpu.intel.com/family"]), ("Flex_170", "Flex_Series"));
    let both = of_ids(["0x56c0", "0x56c1"]);
    assert_eq!(both["gpu.intel.com/family"], "Flex_Series");
    // of several the rule that comes last decides, whatever the cards' order
    for ids in [["0x56c0", "0x56c1"], ["0x56c1", "0x56c0"]] {
        let both = of_ids(ids);
        let told = ["product", "device.count"].map(|key| both[&format!("gpu.intel.com/{key}")].clone());
        assert_eq!(told, ["Flex_140", "1"], "{ids:?}");
    }
    let series = of_ids(["0x56c0", "0x0bda"]);
    assert_eq!((&*series["gpu.intel.com/family"], &*series["gpu.intel.com/product"]), ("Flex_Series", "Flex_170"));
    // neither is hidden by a card that no rule names
    let beside = of_ids(["0x0bd5", "0x46a6"]);
    let told = ["product", "family", "device.count"].map(|key| beside[&format!("gpu.intel.com/{key}")].clone());
    assert_eq!(told, ["Max_1550", "Max_Series", "1"]);
}

#[test]
fn the_processors_graphics_hide_no_label_of_the_card_beside_it() {
    let labels = of(
        &Forest::described(json!({ "cards": [
            { "vendor": "intel", "address": "0000:00:02.0", "card": 0, "render": 128, "device": "0x46a6", "driver": "i915" },
            { "vendor": "intel", "address": "0000:03:00.0", "card": 1, "render": 129, "device": "0x56a0", "driver": "xe",
              "memory": 17179869184u64 },
        ] })),
        Vendor::Intel,
        &[],
    );
    let told = ["family", "memory.max", "device.count"].map(|key| labels[&format!("gpu.intel.com/{key}")].clone());
    assert_eq!(told, ["A_Series", "17179869184", "2"]);
    assert!(!labels.contains_key("gpu.intel.com/product"));
}

#[test]
fn nvidias_labels_say_what_files_tell() {
    let forest = Forest::named("g");
    let expected = json!({
        "gpu.count": "2", "gpu.product": "NVIDIA-A100-PCIE-40GB", "gpu.machine": "PowerEdge-R750xa", "gpu.mode": "compute",
        "cuda.driver.major": "550", "cuda.driver.minor": "90", "cuda.driver.rev": "07",
        "cuda.driver-version.major": "550", "cuda.driver-version.minor": "90", "cuda.driver-version.revision": "07",
        "cuda.driver-version.full": "550.90.07",
    });
    let plain = of(&forest, Vendor::Nvidia, &[]);
    assert_eq!(below(&plain, "nvidia.com/"), map(expected));
    let offered = |flags: &[&str]| {
        let labels = of(&forest, Vendor::Nvidia, &[&["-profile=nvidia"], flags].concat());
        ["product", "replicas", "sharing-strategy"].map(|fact| labels[&format!("nvidia.com/gpu.{fact}")].clone())
    };
    assert_eq!(offered(&[]), ["NVIDIA-A100-PCIE-40GB", "1", "none"]);
    assert_eq!(offered(&["--nvidia-replicas=4"]), ["NVIDIA-A100-PCIE-40GB-SHARED", "4", "time-slicing"]);
    let renamed = offered(&["--nvidia-replicas=4", "--rename-by-default"]);
    assert_eq!(renamed, ["NVIDIA-A100-PCIE-40GB", "4", "time-slicing"]);
}

#[test]
fn instances_are_labelled_by_their_strategy() {
    let mut forest = Forest::named("f");
    let found = |forest: &Forest| {
        let options = FilesOptions {
            roots: forest.roots.clone(),
            instance_profile: "3g.20gb+me".into(),
            ..FilesOptions::default()
        };
        options.scan().unwrap().devices
    };
    let style = |mig| {
        let flags = NvidiaArgs::augment_args(clap::Command::new("plugin")).get_matches_from(["plugin"]);
        let offer = NvidiaArgs { mig_strategy: mig, ..NvidiaArgs::from_arg_matches(&flags).unwrap() };
        let labeller = Labeller::new(move |hosts| nvidia_labels::labels(hosts, Some(&offer)));
        Style { labellers: [(Vendor::Nvidia, labeller)].into(), vcuda: false }
    };
    let labels_with =
        |forest: &Forest, mig| below(&labels(&found(forest), Vendor::Nvidia, &style(mig)), "nvidia.com/");
    // the GPU's model is not known without its directory in /proc
    let none = labels_with(&forest, MigStrategy::None);
    assert_eq!(none, map(json!({ "gpu.count": "1", "gpu.replicas": "0" })));
    let mixed = json!({
        "gpu.count": "1", "gpu.replicas": "0", "mig.strategy": "mixed", "mig-3g.20gb.me.count": "2",
        "mig-3g.20gb.me.product": "MIG-3g.20gbme", "mig-3g.20gb.me.replicas": "1",
        "mig-3g.20gb.me.sharing-strategy": "none",
    });
    assert_eq!(labels_with(&forest, MigStrategy::Mixed), map(mixed));
    let single = labels_with(&forest, MigStrategy::Single);
    assert_eq!(
        (&*single["gpu.count"], &*single["gpu.product"], &*single["mig.strategy"]),
        ("2", "MIG-3g.20gbme", "single")
    );
    // a whole GPU besides it
    forest = Forest::described(json!({ "cards": [
        { "vendor": "nvidia", "minor": 0, "mig": [{ "gi": 1, "ci": 0, "minors": [12, 13] }] },
        { "vendor": "nvidia", "minor": 1 },
    ] }));
    let invalid = labels_with(&forest, MigStrategy::Single);
    assert_eq!((&*invalid["gpu.product"], &*invalid["gpu.count"]), ("MIG-INVALID", "0"));
}

#[test]
fn gates_follow_what_is_offered() {
    let forest = Forest::named("e");
    let devices = forest.scan(Vendor::Intel).devices;
    let gates = |flags: &[&str]| {
        let hosts: Vec<&HostDevice> = devices.iter().collect();
        let wanted = Wanted::of(&hosts, &config(&forest, flags).labels.style);
        wanted.gates.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>()
    };
    let intel = "intel.feature.node.kubernetes.io/gpu=true";
    assert_eq!(gates(&["-profile=intel"]), [intel]);
    assert_eq!(gates(&["--node-name=n"]), [intel, "nvidia-device-enable=enable"]);
    assert_eq!(Wanted::of(&[], &Style { vcuda: true, ..Style::default() }), Wanted::default());
}
