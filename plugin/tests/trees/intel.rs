//! Intel's own cases: what counts as a GPU, by-path links, monitoring engines, tiles and memory.

use std::path::PathBuf;

use kerf::units::Mib;
use kerf_plugin::testing::backend::{Part, Vendor};
use kerf_plugin::testing::intel::scan::{IntelOptions, by_path, monitoring_nodes};
use kerf_plugin::testing::scanner::Files as _;
use serde_json::{Value, json};

use crate::forest::{Forest, left_out};

fn card(number: u32, change: Value) -> Value {
    let mut card = json!({ "vendor": "intel", "address": format!("0000:0{number}:02.0"), "card": number });
    card.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
    card
}

/// GPUs by driver.
fn count(cards: Value, without: &[&str]) -> (usize, usize) {
    let scan = Forest::described(json!({ "cards": cards, "without": without })).scan(Vendor::Intel);
    let of = |driver| scan.devices.iter().filter(|host| &*host.origin.driver == driver).count();
    (of("i915"), of("xe"))
}

#[test]
fn what_is_a_card_and_what_is_none() {
    let plain = || card(0, json!({}));
    assert_eq!(count(json!([plain()]), &["dev/dri/card0"]), (0, 0));
    assert_eq!(count(json!([plain()]), &["sys/class/drm/card0", "sys/devices/pci0000:00"]), (0, 0));
    assert_eq!(count(json!([plain()]), &["sys/devices/pci0000:00/0000:00:02.0/drm/card0/device"]), (0, 0));
    assert_eq!(count(json!([card(0, json!({ "control": true }))]), &[]), (1, 0));
    assert_eq!(count(json!([card(0, json!({ "driver": "xe" }))]), &[]), (0, 1));
    assert_eq!(
        count(json!([card(0, json!({ "driver": "xe" })), card(1, json!({ "driver": "i915" }))]), &[]),
        (1, 1)
    );
    assert_eq!(count(json!([card(0, json!({ "sriov_numvfs": "0" }))]), &[]), (1, 0));
    assert_eq!(count(json!([plain(), card(1, json!({}))]), &["dev/dri/card1"]), (1, 0));
    assert_eq!(count(json!([card(0, json!({ "vendor_id": "0xbeef" }))]), &[]), (0, 0));
    assert_eq!(count(json!([card(0, json!({ "driver": "vfio-pci" }))]), &[]), (0, 0));
}

#[test]
fn functions_stand_for_their_card() {
    let function = |n| card(n, json!({ "physfn": "0000:00:02.0", "driver": "i915" }));
    let physical = card(0, json!({ "sriov_numvfs": "2", "driver": "i915" }));
    let forest = Forest::described(json!({ "cards": [physical, function(1), function(2)] }));
    let scan = forest.scan(Vendor::Intel);
    assert_eq!(scan.devices.len(), 2);
    assert!(
        scan.devices.iter().all(|host| &*host.origin.card == "0000:00:02.0" && host.origin.part == Part::Function)
    );
    assert_eq!(left_out(&scan), [("card0".to_owned(), "functions-instead")]);
    assert!(scan.remarks.iter().all(|remark| !remark.is_problem()), "as it is meant to be");
}

/// They are given to virtual machines, or bound to nothing: then nothing is offered in the GPU's place.
#[test]
fn a_card_whose_functions_are_elsewhere_is_a_problem_with_its_reason() {
    for driver in [None, Some("vfio-pci")] {
        let physical = card(0, json!({ "sriov_numvfs": "2", "driver": "i915" }));
        let function = json!({ "address": "0000:00:02.1", "vendor": "0x8086", "device": "0x56c0", "class": "0x030000", "driver": driver });
        let forest = Forest::described(json!({ "cards": [physical], "pci": [function],
            "links": { "sys/devices/pci0000:00/0000:00:02.1/physfn": "../0000:00:02.0" } }));
        let scan = forest.scan(Vendor::Intel);
        assert_eq!(left_out(&scan), [("card0".to_owned(), "functions-elsewhere")]);
        assert!(
            scan.remarks
                .iter()
                .any(|remark| remark.is_problem() && remark.why.to_string().contains("sriov_numvfs"))
        );
    }
}

#[test]
fn memory_is_that_of_all_tiles() {
    let memory = |change: Value| {
        let forest = Forest::described(json!({ "cards": [card(0, change)] }));
        let roots = forest.roots.clone();
        let options = IntelOptions { roots, sidecar: None };
        options.scan().unwrap().devices[0].device.memory
    };
    let gib = 1u64 << 30;
    assert_eq!(memory(json!({ "memory": 8 * gib })), Mib(8192));
    assert_eq!(memory(json!({ "memory": 8 * gib, "tiles": 2 })), Mib(16384));
    assert_eq!(memory(json!({ "memory": 8 * gib, "tiles": 2, "driver": "xe" })), Mib(16384));
    assert_eq!(memory(json!({})), Mib(0));
}

/// xe tells it tile by tile; some kernels write it in hexadecimal.
#[test]
fn memory_of_xe_is_that_of_its_tiles() {
    let found = |tiles: &[&str], place: &str| {
        let address = format!("0000:{place}.0");
        let file = |(tile, text): (usize, &&str)| {
            (format!("sys/devices/pci0000:00/{address}/tile{tile}/physical_vram_size_bytes"), json!(text))
        };
        let files: serde_json::Map<String, Value> = tiles.iter().enumerate().map(file).collect();
        let card =
            json!({ "vendor": "intel", "address": address, "card": 0, "render": 128, "driver": "xe", "tiles": 1 });
        let scan = Forest::described(json!({ "cards": [card], "files": files })).scan(Vendor::Intel);
        let host = &scan.devices[0];
        let told: Vec<&str> = scan.remarks.iter().map(|remark| remark.why.code()).collect();
        (host.device.memory, host.origin.integrated, told.join(" "))
    };
    assert_eq!(found(&["0x00000002f8000000"], "03:00"), (Mib(12160), false, String::new()));
    assert_eq!(found(&["12750684160"], "03:00"), (Mib(12160), false, String::new()));
    assert_eq!(found(&["1073741824", "0x40000000"], "03:00"), (Mib(2048), false, String::new()));
    assert_eq!(found(&["many"], "03:00"), (Mib(0), false, "malformed-file no-memory-size".to_owned()));
    assert_eq!(found(&["1073741824", ""], "03:00").0, Mib(0), "a part is not the whole");
    // the driver has no such file of the processor's graphics
    assert_eq!(found(&[], "00:02"), (Mib(0), true, "no-own-memory".to_owned()));
    assert_eq!(found(&[], "03:00"), (Mib(0), false, "no-memory-size".to_owned()));
}

/// Partitions of AMD's GPUs and virtual cards have no PCI device.
#[test]
fn cards_that_are_on_no_bus_are_passed_over() {
    let forest = Forest::described(json!({ "cards": [
        { "vendor": "amd", "address": "0000:0a:00.0", "card": 1, "render": 128, "modes": ["CPX", "NPS1"], "partitions": 4 },
        { "vendor": "intel", "address": "0000:03:00.0", "card": 0, "driver": "xe" },
    ], "links": { "sys/class/drm/card9": "../../devices/platform/vkms/drm/card9" } }));
    let scan = forest.scan(Vendor::Intel);
    assert_eq!((scan.devices.len(), left_out(&scan)), (1, vec![]));
}

#[test]
fn links_by_path_are_the_cards_own() {
    let forest = Forest::described(json!({
        "cards": [card(0, json!({ "render": 128 }))],
        "dev": ["dri/by-path/pci-0000:0f:05.0-card", "dri/by-path/pci-0000:00:02.0-platform-simple-framebuffer.0-card"],
    }));
    let paths = by_path(&forest.roots, "0000:00:02.0");
    let expected =
        ["card", "render"].map(|kind| PathBuf::from(format!("/dev/dri/by-path/pci-0000:00:02.0-{kind}")));
    assert_eq!(paths, expected);
    assert_eq!(by_path(&forest.roots, "0000:05:00.0"), Vec::<PathBuf>::new());
    assert_eq!(by_path(&forest.roots, "000:ff:05.1"), Vec::<PathBuf>::new());
}

#[test]
fn monitoring_engines_are_found_with_both_drivers() {
    let nodes =
        |change: Value| monitoring_nodes(&Forest::described(json!({ "cards": [card(0, change)] })).roots, "card0");
    assert_eq!(nodes(json!({ "driver": "xe", "mei": [1] })), [PathBuf::from("/dev/mei1")]);
    assert_eq!(nodes(json!({ "driver": "i915", "mei": [0, 2] })).len(), 2);
    assert_eq!(nodes(json!({})).len(), 0);
}

#[test]
fn a_card_without_a_link_is_served_and_its_address_is_missed() {
    let forest = Forest::described(json!({
        "files": { "sys/class/drm/card0/device/vendor": "0x8086", "sys/class/drm/card0/device/device": "0x9a49",
            "sys/class/drm/card0/device/drm/card0/dev": "226:0" },
        "dev": ["dri/card0"],
    }));
    let scan = forest.scan(Vendor::Intel);
    assert_eq!((scan.devices.len(), scan.devices[0].pci.as_str()), (1, ""));
    assert!(scan.remarks.iter().any(|remark| !remark.left_out && remark.why.code() == "unreadable-file"));
}
