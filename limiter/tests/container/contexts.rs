//! What the driver takes for itself: contexts, estimated until the host has measured, and then what was measured.

use std::fs;
use std::mem::offset_of;
use std::os::unix::fs::FileExt;

use kerf_limiter_contract::state::{Device, State};
use kerf_limiter_contract::{overhead, path};
use kerf_standin_card::card::Card;

use crate::support::{Container, MIB, Way};

const CONTEXT: u64 = 400 * MIB;

/// Whoever comes last gets all of its share, though every share of the card is sold and others have many processes.
#[test]
fn shares_that_add_up_to_the_card_do_not_end_in_the_drivers_out_of_memory() {
    let folder = tempfile::tempdir().unwrap();
    let card = folder.path().join("card");
    Card::create(&card, 4096 * MIB).unwrap();
    let [greedy, last] =
        [(); 2].map(|()| Container::beside(&card, 2048 * MIB, 50, 50).with_contexts(CONTEXT, CONTEXT));
    let _held: Vec<_> = (0..4).map(|_| greedy.hold(Way::Dlsym, &["greedy:2097152:1"])).collect();
    assert!(greedy.report().used <= 2048 * MIB, "{} MiB", greedy.report().used / MIB);
    assert_eq!(greedy.report().used, greedy.snapshot().held(0));
    let most = format!("alloc:{}", 1648 * MIB);
    assert_eq!(last.run(Way::Linked, &[&most, "alloc:1"]), [format!("{most} 0"), "alloc:1 2".to_owned()]);
}

#[test]
fn a_context_counts_from_its_beginning_to_its_end() {
    let container = Container::new(1024 * MIB, 50, 50).with_contexts(CONTEXT, CONTEXT);
    let commands = ["hold", "context", "hold", "context", "destroy", "hold", "primary", "hold", "reset", "hold"];
    let mut held = container.hold(Way::Linked, &commands);
    let agrees = |contexts: u64| {
        assert_eq!(
            (container.snapshot().held(0), container.report().used),
            (contexts * CONTEXT, contexts * CONTEXT)
        );
    };
    agrees(1);
    assert_eq!(held.next(), ["hold 0", "context 0"]);
    agrees(2);
    // a third one does not fit: the program keeps the second
    assert_eq!(held.next(), ["hold 0", "context 2", "destroy 0"]);
    agrees(1);
    assert_eq!(held.next(), ["hold 0", "primary 0"]);
    agrees(1);
    assert_eq!(held.next(), ["hold 0", "reset 0"]);
    agrees(0);
}

#[test]
fn a_program_sees_what_its_context_takes() {
    let container = Container::new(1024 * MIB, 50, 50).with_contexts(CONTEXT, CONTEXT);
    let lines = container.run(Way::Linked, &["info", "nvml"]);
    let (total, used) = (1024 * MIB, CONTEXT);
    assert_eq!(lines[0], format!("info {} of {total}", total - used));
    assert_eq!(lines[2], format!("nvml {used} of {total}, {used} of {total}"));
}

/// As the host does: what NVML shows for a process, less what the process holds without its estimate.
#[test]
fn what_the_host_has_measured_counts_instead_of_the_estimate() {
    for (takes, left) in [(600 * MIB, 424 * MIB), (250 * MIB, 774 * MIB)] {
        let container = Container::new(1024 * MIB, 50, 50).with_contexts(takes, CONTEXT);
        let most = format!("alloc:{left}");
        let mut held = container.hold(Way::Linked, &["info", "hold", "info", &most, "alloc:1", "hold"]);
        assert_eq!(held.lines[0], format!("info {} of {}", 624 * MIB, 1024 * MIB));
        let (snapshot, report) = (container.snapshot(), container.report());
        let process = &snapshot.processes[0];
        let more = report.processes[0].1 as i64 - process.held[0] as i64;
        let file = fs::OpenOptions::new().write(true).open(container.file(path::OVERHEAD)).unwrap();
        file.write_all_at(&more.to_ne_bytes(), overhead::offset(0, process.slot) as u64).unwrap();
        file.write_all_at(&process.owner.to_ne_bytes(), overhead::owner_offset(0, process.slot) as u64).unwrap();
        let expected = [
            "hold 0".to_owned(),
            format!("info {left} of {}", 1024 * MIB),
            "info 0".to_owned(),
            format!("{most} 0"),
            "alloc:1 2".to_owned(),
        ];
        assert_eq!(held.next(), expected);
        assert_eq!(container.report().used, 1024 * MIB);
    }
}

#[test]
fn the_estimate_is_told_to_the_host_beside_what_is_held() {
    let container = Container::new(1024 * MIB, 50, 50).with_contexts(CONTEXT, CONTEXT);
    let held = container.hold(Way::Linked, &["alloc:2097152"]);
    let process = container.snapshot().processes[0].clone();
    assert_eq!((process.held[0], process.context[0], process.changes[0]), (CONTEXT + 2 * MIB, CONTEXT, 2));
    let at = offset_of!(State, devices) + offset_of!(Device, held) + process.slot * 8;
    let bytes = fs::read(container.file(path::STATE)).unwrap();
    assert_eq!(bytes[at..at + 8], (CONTEXT + 2 * MIB).to_ne_bytes());
    held.kill();
}
