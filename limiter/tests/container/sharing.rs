//! Memory that processes share: it counts once in a container, as long as any of them has it.

use kerf_limiter_contract::state::Flags;

use crate::support::{Container, MIB, Way};

const CAP: u64 = 256 * MIB;
const HALF: &str = "alloc:134217728";
const MORE: &str = "alloc:1";

/// The account and the card agree.
#[track_caller]
fn agrees(container: &Container, used: u64) {
    assert_eq!((container.snapshot().held(0), container.report().used), (used, used));
    assert_eq!(container.snapshot().flags, Flags::default());
}

#[test]
fn memory_that_a_process_opens_from_another_counts_once() {
    let container = Container::new(CAP, 100, 100);
    let mut exporter = container.hold(Way::Linked, &[HALF, "ipcget", "hold", "free", "hold"]);
    let open = format!("ipcopen:{}", exporter.told("handle"));
    let importer = container.hold(Way::Dlsym, &[&open, HALF, MORE]);
    assert_eq!(importer.lines, [format!("{open} 0"), format!("{HALF} 0"), format!("{MORE} 2")]);
    agrees(&container, CAP);
    // the exporter frees it; the importer has it still
    assert_eq!(exporter.next(), ["hold 0", "free 0"]);
    assert_eq!(container.run(Way::Linked, &[MORE]), [format!("{MORE} 2")]);
    agrees(&container, CAP);
    importer.kill();
    assert_eq!(container.run(Way::Linked, &["alloc:268435456"]), ["alloc:268435456 0"]);
}

#[test]
fn the_importer_takes_it_over_when_the_exporter_ends() {
    let container = Container::new(CAP, 100, 100);
    let exporter = container.hold(Way::Linked, &[HALF, "ipcget"]);
    let open = format!("ipcopen:{}", exporter.told("handle"));
    let mut importers = [(); 2].map(|()| container.hold(Way::Dlsym, &[&open, "hold", "ipcclose", "hold"]));
    agrees(&container, CAP / 2);
    exporter.kill();
    assert_eq!(container.run(Way::Linked, &["alloc:134217729"]), ["alloc:134217729 2"]);
    agrees(&container, CAP / 2);
    assert_eq!(importers[0].next(), ["hold 0", "ipcclose 0"]);
    agrees(&container, CAP / 2);
    assert_eq!(importers[1].next(), ["hold 0", "ipcclose 0"]);
    agrees(&container, 0);
    assert_eq!(container.run(Way::Linked, &["alloc:268435456"]), ["alloc:268435456 0"]);
}

#[test]
fn memory_that_was_opened_twice_counts_until_it_was_closed_twice() {
    let container = Container::new(CAP, 100, 100);
    let exporter = container.hold(Way::Linked, &[HALF, "ipcget"]);
    let open = format!("ipcopen:{}", exporter.told("handle"));
    let commands = [&open, &open, "hold", "ipcclose", "hold", "ipcclose", "hold"];
    let mut importer = container.hold(Way::GetProcAddress, &commands);
    exporter.kill();
    assert_eq!(container.run(Way::Linked, &["alloc:134217729"]), ["alloc:134217729 2"]);
    assert_eq!(importer.next(), ["hold 0", "ipcclose 0"]);
    assert_eq!(container.run(Way::Linked, &["alloc:134217729"]), ["alloc:134217729 2"]);
    agrees(&container, CAP / 2);
    assert_eq!(importer.next(), ["hold 0", "ipcclose 0"]);
    agrees(&container, 0);
}

#[test]
fn memory_of_another_container_counts_once_for_all_that_open_it() {
    let other = Container::new(CAP, 50, 50);
    let exporter = other.hold(Way::Linked, &[HALF, "ipcget"]);
    let open = format!("ipcopen:{}", exporter.told("handle"));
    let container = Container::beside(&other.card, CAP, 50, 50);
    let mut first = container.hold(Way::Linked, &[&open, "hold", "ipcclose", "hold"]);
    assert_eq!(container.snapshot().held(0), CAP / 2);
    let second = container.hold(Way::Linked, &[&open, HALF, MORE]);
    assert_eq!(second.lines, [format!("{open} 0"), format!("{HALF} 0"), format!("{MORE} 2")]);
    assert_eq!(container.snapshot().held(0), CAP);
    // who paid closes it; the other one has it still
    first.next();
    assert_eq!(container.snapshot().held(0), CAP);
    second.kill();
    assert_eq!(container.run(Way::Linked, &["alloc:268435456"]), ["alloc:268435456 0"]);
    assert_eq!(other.snapshot().held(0), CAP / 2);
}

#[test]
fn what_a_context_had_opened_and_exported_ends_with_it() {
    let container = Container::new(CAP, 100, 100);
    let mut exporter = container.hold(Way::Linked, &["context", HALF, "ipcget", "hold", "destroy", "hold"]);
    let open = format!("ipcopen:{}", exporter.told("handle"));
    let mut importer = container.hold(Way::Linked, &["context", &open, "hold", "destroy", "hold"]);
    exporter.next();
    agrees(&container, CAP / 2);
    importer.next();
    agrees(&container, 0);
}

const CREATE: &str = "create:134217728";
const MAP: &str = "map:134217728";

#[test]
fn exported_physical_memory_is_given_back_when_nobody_has_it() {
    let container = Container::new(CAP, 100, 100);
    let commands = ["create:268435456", "export", "release", MORE, "closefd", "alloc:268435456"];
    let held = container.hold(Way::Dlsym, &commands);
    let answers: Vec<_> = held.lines.iter().filter(|line| !line.starts_with("descriptor")).collect();
    // an open descriptor keeps it
    let expected = ["create:268435456 0", "export 0", "release 0", "alloc:1 2", "closefd 0", "alloc:268435456 0"];
    assert_eq!(answers, expected);
    agrees(&container, CAP);
}

#[test]
fn imported_physical_memory_counts_once() {
    let container = Container::new(CAP, 100, 100);
    let exporter = container.hold(Way::Linked, &[CREATE, MAP, "export"]);
    let import = format!("import:{}", exporter.told("descriptor"));
    let commands = [&import, MAP, HALF, MORE, "hold", "unmap", "release", "hold"];
    let mut importer = container.hold(Way::Dlsym, &commands);
    let expected = [format!("{import} 0"), format!("{MAP} 0"), format!("{HALF} 0"), format!("{MORE} 2")];
    assert_eq!(importer.lines, expected);
    agrees(&container, CAP);
    exporter.kill();
    assert_eq!(container.run(Way::Linked, &[MORE]), [format!("{MORE} 2")]);
    agrees(&container, CAP);
    assert_eq!(importer.next(), ["hold 0", "unmap 0", "release 0"]);
    agrees(&container, CAP / 2);
}
