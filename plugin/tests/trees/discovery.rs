//! The sample trees: captured shapes of real hosts.

use std::collections::{BTreeMap, BTreeSet};

use kerf::device::Link;
use kerf::units::Mib;
use kerf_plugin::testing::amd::scan::AmdOptions;
use kerf_plugin::testing::backend::{Part, Vendor};
use kerf_plugin::testing::intel::scan::IntelOptions;
use kerf_plugin::testing::scan::Remark;
use kerf_plugin::testing::scanner::Files as _;
use serde_json::json;

use crate::forest::{Forest, left_out, names, nodes};
use crate::offers::contract;

#[test]
fn a_single_card_is_found_with_its_facts() {
    let scan = Forest::named("a").scan(Vendor::Amd);
    assert_eq!(names(&scan), ["0000:19:00.0"]);
    let host = &scan.devices[0];
    assert_eq!(nodes(host), ["/dev/dri/card0", "/dev/dri/renderD128"]);
    assert_eq!(host.control_nodes, [std::path::PathBuf::from("/dev/kfd")]);
    assert_eq!(host.device.memory, Mib(17_163_091_968 >> 20));
    assert_eq!((host.device.numa, &*host.device.model), (Some(0), "Vega 10"));
    assert_eq!((&*host.origin.layout, &*host.origin.model_id), ("", "0x6860"));
    assert_eq!(scan.remarks, []);
}

#[test]
fn partitions_are_joined_to_their_cards() {
    let scan = Forest::named("b").scan(Vendor::Amd);
    assert_eq!(scan.devices.len(), 32);
    let mut cards: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for host in &scan.devices {
        cards.entry(&host.origin.card).or_default().push(&host.origin.name);
        assert_eq!(&*host.origin.layout, "cpx_nps1");
    }
    let expected = [
        "0000:0a:00",
        "0000:80:00",
        "0000:a4:00",
        "0000:c8:00",
        "0001:0b:00",
        "0001:81:00",
        "0001:a5:00",
        "0001:c9:00",
    ];
    assert_eq!(cards.keys().copied().collect::<Vec<_>>(), expected);
    assert!(cards.values().all(|parts| parts.len() == 4));
    // minors are not contiguous, and each partition has its own
    let second = scan.devices.iter().find(|host| host.device.id.as_str() == "amdgpu_xcp_9").unwrap();
    assert_eq!(nodes(second), ["/dev/dri/card10", "/dev/dri/renderD137"]);
    assert_eq!((&*second.origin.card, &second.origin.part), ("0000:80:00", &Part::Partition));
    assert_eq!(second.device.numa, Some(0));
    // every partition reaches the 31 others
    assert!(scan.devices.iter().all(|host| host.device.links.len() == 31));
}

#[test]
fn hives_are_joined_by_xgmi_and_each_other_by_pcie() {
    let scan = Forest::named("c").scan(Vendor::Amd);
    assert_eq!(scan.devices.len(), 8);
    for host in &scan.devices {
        for (other, link) in &host.device.links {
            let together = host.device.index / 4 == other / 4;
            assert_eq!(*link, if together { Link::NvLink(1) } else { Link::Node });
        }
    }
}

#[test]
fn sixty_three_partitions_without_memory_banks_are_all_found() {
    let scan = Forest::named("d").scan(Vendor::Amd);
    assert_eq!(scan.devices.len(), 63);
    assert_eq!(left_out(&scan), []);
    let of: BTreeSet<_> = scan.remarks.iter().map(|remark| remark.why.code()).collect();
    assert_eq!(of, BTreeSet::from(["no-memory-size"]));
    assert!(scan.devices.iter().any(|host| host.device.id.as_str() == "amdgpu_xcp_62"));
}

/// Kernels from 6.5 to 6.9 left the number of a partition's device to the platform bus.
#[test]
fn partitions_are_found_under_both_names_of_their_devices() {
    let with_mark = |mark: &str| {
        let card = json!({ "vendor": "amd", "address": "0000:0a:00.0", "card": 1, "render": 128, "memory": 1u64 << 34,
            "modes": ["CPX", "NPS1"], "partitions": 4, "mark": mark });
        Forest::described(json!({ "cards": [card] })).scan(Vendor::Amd)
    };
    for mark in ["_", "."] {
        let scan = with_mark(mark);
        let parts = (0..3).map(|number| format!("amdgpu_xcp{mark}{number}"));
        assert_eq!(names(&scan), ["0000:0a:00.0".to_owned()].into_iter().chain(parts).collect::<Vec<_>>());
        assert_eq!(nodes(&scan.devices[3]), ["/dev/dri/card4", "/dev/dri/renderD131"]);
        assert_eq!(scan.remarks, []);
    }
    // the next name is not known, and the compute driver's list tells what is missing
    let scan = with_mark("-");
    assert_eq!(names(&scan), ["0000:0a:00.0"]);
    let nodes = [2, 3, 4].map(|number| (format!("KFD node {number}"), "unclaimed-node"));
    assert_eq!(left_out(&scan), nodes);
    assert!(scan.remarks[0].why.to_string().contains("render minor 129 at 0000:0a:00,"), "{}", scan.remarks[0].why);
}

#[test]
fn what_only_the_bus_shows_is_told_with_its_driver() {
    let amd = |n: u32, driver: Option<&str>| {
        json!({ "address": format!("0000:0{n}:00.0"), "vendor": "0x1002", "device": "0x74a1",
        "class": "0x120000", "driver": driver })
    };
    let card = json!({ "vendor": "amd", "address": "0000:19:00.0", "card": 0, "render": 128 });
    let forest = Forest::described(json!({ "cards": [card], "pci": [amd(1, None), amd(2, Some("vfio-pci"))] }));
    let look = |forest: &Forest| {
        let options = AmdOptions { roots: forest.roots.clone(), exporter: None };
        let backend = options.backend().open();
        (backend.discover().is_ok(), backend.remarks())
    };
    let told = |remarks: Vec<Remark>| {
        remarks
            .into_iter()
            .filter(|remark| remark.left_out)
            .map(|remark| (remark.subject, remark.why.code()))
            .collect::<Vec<_>>()
    };
    let (found, remarks) = look(&forest);
    assert!(found);
    assert_eq!(
        told(remarks),
        [("0000:01:00.0".to_owned(), "no-driver"), ("0000:02:00.0".to_owned(), "unknown-driver")]
    );
    // without the driver each is told, too
    let (found, remarks) = look(&Forest::described(json!({ "pci": [amd(1, None), amd(3, Some("amdgpu"))] })));
    assert!(!found);
    assert_eq!(
        told(remarks),
        [("0000:01:00.0".to_owned(), "no-driver"), ("0000:03:00.0".to_owned(), "driver-unavailable")]
    );
    let intel = |address: &str, class: &str, driver: &str| {
        json!({ "address": address, "vendor": "0x8086", "device": "0x56a0",
        "class": class, "driver": driver })
    };
    // an NPU is no GPU; a GPU that is left out by its name is told once
    let forest = Forest::described(json!({
        "cards": [{ "vendor": "intel", "address": "0000:04:00.0", "card": 1, "render": 129, "driver": "i915", "sriov_numvfs": "2" }],
        "pci": [intel("0000:00:0b.0", "0x120000", "intel_vpu"), intel("0000:03:00.0", "0x030000", "xe"),
            intel("0000:05:00.0", "0x038000", "vfio-pci")],
    }));
    let backend = IntelOptions { roots: forest.roots.clone(), sidecar: None }.backend().open();
    assert!(backend.discover().is_ok());
    let wanted =
        [("card1", "functions-elsewhere"), ("0000:03:00.0", "not-listed"), ("0000:05:00.0", "unknown-driver")];
    assert_eq!(told(backend.remarks()), wanted.map(|(subject, code)| (subject.to_owned(), code)));
}

#[test]
fn two_drivers_of_one_vendor_are_told_apart() {
    let scan = Forest::named("e").scan(Vendor::Intel);
    let shown: Vec<_> =
        scan.devices.iter().map(|host| (&*host.origin.name, &*host.origin.driver, host.pci.as_str())).collect();
    assert_eq!(shown, [("card0", "i915", "0042:01:02.0"), ("card1", "xe", "0042:01:05.0")]);
    assert_eq!(nodes(&scan.devices[0]), ["/dev/dri/card0", "/dev/dri/renderD128"]);
    assert_eq!(scan.devices[1].device.memory, Mib(8192));
    assert_eq!(scan.remarks, []);
}

#[test]
fn instances_have_their_cards_file_and_their_own() {
    let scan = Forest::named("f").scan(Vendor::Nvidia);
    assert_eq!(names(&scan), ["nvidia0/gi1", "nvidia0/gi2"]);
    let caps = |a: u32, b: u32| {
        ["/dev/nvidia0".to_owned()].into_iter().chain([a, b].map(|cap| format!("/dev/nvidia-caps/nvidia-cap{cap}")))
    };
    assert_eq!(nodes(&scan.devices[0]), caps(12, 13).collect::<Vec<_>>());
    assert_eq!(nodes(&scan.devices[1]), caps(21, 22).collect::<Vec<_>>());
    assert!(scan.devices.iter().all(|host| &*host.origin.card == "nvidia0"));
}

#[test]
fn cards_of_the_drivers_directory_have_their_names() {
    let scan = Forest::named("g").scan(Vendor::Nvidia);
    let shown: Vec<_> = scan.devices.iter().map(|host| (host.device.id.as_str(), host.pci.as_str())).collect();
    let uuids = ["GPU-5c0d6a2e-94a5-4e4b-9d2f-0a1b2c3d4e5f", "GPU-6c0d6a2e-94a5-4e4b-9d2f-0a1b2c3d4e60"];
    assert_eq!(shown, [(uuids[0], "0000:3b:00.0"), (uuids[1], "0000:af:00.0")]);
    assert_eq!(scan.devices[1].device.numa, Some(1));
    assert_eq!(&*scan.devices[0].device.model, "NVIDIA A100-PCIE-40GB");
    assert_eq!(nodes(&scan.devices[1]), ["/dev/nvidia1"]);
}

#[test]
fn a_host_without_a_driver_says_which_file_it_lacks() {
    let forest = Forest::described(json!({}));
    for (vendor, word) in
        [(Vendor::Amd, "amdgpu"), (Vendor::Intel, "class/drm"), (Vendor::Nvidia, "/dev/nvidiactl")]
    {
        let error = forest.look(vendor).unwrap_err();
        assert_eq!(error.code(), "unavailable");
        assert!(error.to_string().contains(word), "{error}");
    }
    let half = Forest::described(json!({ "cards": [{ "vendor": "amd", "address": "0000:19:00.0", "card": 0,
        "render": 128 }], "without": ["sys/class/kfd"] }));
    assert!(half.look(Vendor::Amd).unwrap_err().to_string().contains("KFD"));
}

#[test]
fn each_vendors_backend_finds_its_own_cards_on_a_mixed_host() {
    let forest = Forest::described(json!({ "cards": [
        { "vendor": "amd", "address": "0000:19:00.0", "card": 1, "render": 129 },
        { "vendor": "intel", "address": "0000:00:02.0", "card": 0, "render": 128, "driver": "i915" },
        { "vendor": "nvidia", "address": "0000:3b:00.0", "minor": 0, "uuid": "GPU-a" },
    ] }));
    for (vendor, id, node) in [
        (Vendor::Amd, "0000:19:00.0", "/dev/dri/card1"),
        (Vendor::Intel, "0000:00:02.0", "/dev/dri/card0"),
        (Vendor::Nvidia, "GPU-a", "/dev/nvidia0"),
    ] {
        let scan = forest.scan(vendor);
        assert_eq!(names(&scan), [id]);
        assert_eq!(nodes(&scan.devices[0])[0], node);
        assert_eq!(left_out(&scan), []);
    }
}

#[test]
fn what_is_wrong_with_a_card_has_a_name() {
    let card = |n: u32| json!({ "vendor": "amd", "address": format!("0000:1{n}:00.0"), "card": n, "render": 128 + n, "memory": 1u64 << 30 });
    let dir = "sys/devices/pci0000:00/0000:10:00.0";
    for (change, out) in [
        (json!({ "without": ["dev/dri/renderD128"] }), "no-device-file"),
        (json!({ "without": [format!("{dir}/drm/renderD128")] }), "no-single-node"),
        (json!({ "without": [format!("{dir}/drm")] }), "missing-file"),
        (json!({ "without": ["sys/class/kfd/kfd/topology/nodes/1"] }), "not-in-topology"),
        (
            json!({ "files": { "sys/class/kfd/kfd/topology/nodes/1/properties": "drm_render_minor many" } }),
            "not-in-topology",
        ),
        (
            json!({ "files": { "sys/class/kfd/kfd/topology/nodes/1/properties": "drm_render_minor 129\nlocation_id 1" } }),
            "not-in-topology",
        ),
        (
            json!({ "files": { "sys/class/kfd/kfd/topology/nodes/1/properties": "drm_render_minor 128\nlocation_id 4352" } }),
            "other-in-topology",
        ),
        (json!({ "files": { format!("{dir}/vendor"): "0x10de" } }), "malformed-file"),
        (json!({ "links": { format!("{dir}/drm/card0/device"): "../../../0000:11:00.0" } }), "foreign-card"),
    ] {
        let mut description = change.clone();
        description["cards"] = json!([card(0), card(1)]);
        let scan = Forest::described(description).scan(Vendor::Amd);
        assert!(left_out(&scan).contains(&("0000:10:00.0".to_owned(), out)), "{change}: {:?}", scan.remarks);
        assert!(!names(&scan).contains(&"0000:10:00.0".to_owned()));
    }
    for (numa, seen) in [("-1", None), ("-3", Some("malformed-file")), ("none", Some("malformed-file"))] {
        let files = json!({ format!("{dir}/numa_node"): numa });
        let scan = Forest::described(json!({ "cards": [card(0)], "files": files })).scan(Vendor::Amd);
        assert_eq!(names(&scan), ["0000:10:00.0"]);
        assert_eq!(scan.devices[0].device.numa, None);
        assert_eq!(scan.remarks.first().map(|remark| remark.why.code()), seen);
    }
}

#[test]
fn two_cards_that_claim_one_file_are_both_left_out() {
    let card = |n: u32| json!({ "vendor": "nvidia", "address": format!("0000:1{n}:00.0"), "minor": 0, "uuid": format!("GPU-{n}") });
    let scan = Forest::described(json!({ "cards": [card(0), card(1)] })).scan(Vendor::Nvidia);
    assert_eq!(names(&scan), Vec::<String>::new());
    assert_eq!(left_out(&scan).iter().map(|(_, why)| *why).collect::<Vec<_>>(), ["named-twice", "named-twice"]);
}

/// Behind some bridges (Intel's VMD) the kernel's number of a PCI domain has more than four digits.
#[test]
fn a_card_in_a_domain_of_more_than_four_digits_is_found() {
    let cards = json!([
        { "vendor": "amd", "address": "10000:19:00.0", "card": 0, "render": 128, "memory": 17163091968u64 },
        { "vendor": "amd", "address": "0000:19:00.0", "card": 1, "render": 129, "memory": 17163091968u64 },
        { "vendor": "intel", "address": "10001:03:00.0", "card": 2, "render": 130, "driver": "xe" },
        { "vendor": "nvidia", "address": "10002:3b:00.0", "minor": 0, "uuid": "GPU-0" },
        { "vendor": "nvidia", "address": "0002:3b:00.0", "minor": 1, "uuid": "GPU-1" },
    ]);
    let forest = Forest::described(json!({ "cards": cards }));
    for (vendor, addresses) in [
        (Vendor::Amd, vec!["10000:19:00.0", "0000:19:00.0"]),
        (Vendor::Intel, vec!["10001:03:00.0"]),
        (Vendor::Nvidia, vec!["10002:3b:00.0", "0002:3b:00.0"]),
    ] {
        let scan = forest.scan(vendor);
        assert_eq!(scan.devices.iter().map(|host| host.pci.as_str()).collect::<Vec<_>>(), addresses);
        assert_eq!(left_out(&scan), []);
    }
}

#[test]
fn two_cards_in_one_slot_are_two_cards() {
    let cards = json!([
        { "vendor": "amd", "address": "0000:05:00.0", "card": 0, "render": 128, "memory": 17163091968u64 },
        { "vendor": "amd", "address": "0000:05:00.1", "card": 1, "render": 129, "memory": 17163091968u64 },
    ]);
    let forest = Forest::described(json!({ "cards": cards }));
    for (flag, wanted) in [("--include-gpus=05:00.1", "0000:05:00.1"), ("--exclude-gpus=05:00.1", "0000:05:00.0")] {
        let found = contract(&forest, &["-profile=amd", flag]).backend.open().discover().unwrap();
        assert_eq!(found.iter().map(|host| host.device.id.as_str()).collect::<Vec<_>>(), [wanted], "{flag}");
    }
}
