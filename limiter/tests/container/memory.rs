//! Every way to allocate is counted for the pages that the driver takes for it.

use kerf_limiter_contract::state::Flags;

use crate::support::{Built, Container, MIB, WAYS, Way};

const CAP: u64 = 256 * MIB;

/// Runs commands, each with its expected status. After each the container's account must equal the memory that the
/// GPU itself has in use.
#[track_caller]
fn expect(way: Way, steps: &[(&str, i32)]) {
    let container = Container::new(CAP, 100, 100);
    let commands: Vec<&str> = steps.iter().map(|(command, _)| *command).collect();
    let held = container.hold(way, &commands);
    let expected: Vec<String> = steps.iter().map(|(command, status)| format!("{command} {status}")).collect();
    assert_eq!(held.lines, expected, "{way:?}");
    let (report, snapshot) = (container.report(), container.snapshot());
    assert_eq!(snapshot.held(0), report.used, "{way:?}: the account and the card differ");
    assert!(report.peak <= CAP, "{way:?}: {} bytes were in use", report.peak);
    assert_eq!(snapshot.flags, Flags::default());
}

fn in_each_way(steps: &[(&str, i32)]) {
    for way in WAYS {
        expect(way, steps);
    }
}

const OUT_OF_MEMORY: i32 = 2;

#[test]
fn linear_memory() {
    in_each_way(&[
        ("alloc:268435456", 0),
        ("alloc:1", OUT_OF_MEMORY),
        ("free", 0),
        ("alloc:266338303", 0),
        ("alloc:2097153", OUT_OF_MEMORY),
        ("alloc:1048576", 0),
        ("alloc:1", OUT_OF_MEMORY),
    ]);
}

/// The driver takes pages of 2 MiB: a piece of 1.1 MiB has one to itself, and small pieces of a context share one.
#[test]
fn pieces_count_for_the_pages_that_they_take() {
    // 128 pages
    let mut steps = vec![("alloc:1153434", 0); 64];
    steps.extend([("alloc:132120576", 0), ("alloc:524288", 0), ("alloc:524288", 0), ("alloc:524288", 0)]);
    steps.extend([("alloc:524288", 0), ("alloc:1", OUT_OF_MEMORY), ("free", 0), ("alloc:1", 0)]);
    // one more context has pages of its own
    steps.extend([("context", 0), ("alloc:1", OUT_OF_MEMORY)]);
    expect(Way::Linked, &steps);
}

#[test]
fn managed_memory() {
    in_each_way(&[("managed:268435456", 0), ("managed:1", 2), ("free", 0), ("managed:512", 0)]);
}

#[test]
fn pitched_memory() {
    in_each_way(&[("pitch:500:524288", 0), ("pitch:1:1", 2), ("free", 0), ("pitch:1:1", 0)]);
}

#[test]
fn arrays_and_mipmaps() {
    // 4096 * 4096 * 4 channels * 4 bytes = 256 MiB
    in_each_way(&[("array:4096:4096:32:4", 0), ("array:1:0:1:1", 2), ("freearray", 0), ("array:64:64:1:1", 0)]);
    expect(Way::Dlsym, &[("array3d:512:512:512:2:1:0", 0), ("alloc:1", 2), ("freearray", 0)]);
    expect(Way::Dlsym, &[("array3d:8192:8192:2:2:1:1", 0), ("alloc:1", 2), ("freearray", 0)]);
    // 64 MiB and a third of it
    expect(Way::Dlsym, &[("mipmapped:4096:4096:32:1:13", 0), ("alloc:178257921", 2), ("alloc:178257920", 0)]);
    expect(Way::Dlsym, &[("array3d:65536:65536:0:32:4:64", 0), ("alloc:268435456", 0)]);
}

#[test]
fn physical_memory_counts_while_it_is_held_or_mapped() {
    in_each_way(&[
        ("create:268435456", 0),
        ("create:2097152", 2),
        ("map:268435456", 0),
        ("release", 0),
        ("alloc:1", 2),
        ("retain", 0),
        ("unmap", 0),
        ("alloc:1", 2),
        ("release", 0),
        ("alloc:268435456", 0),
    ]);
}

#[test]
fn the_hosts_memory_does_not_count() {
    expect(Way::GetProcAddress, &[("host:1073741824", 0), ("create:1073741824:1", 0), ("alloc:268435456", 0)]);
}

#[test]
fn memory_of_other_interfaces_counts_while_it_is_imported() {
    let container = Container::new(CAP, 100, 100);
    let commands = ["alloc:134217728", "external:134217728", "external:1", "freeexternal", "external:1"];
    let answers = [0, 0, 2, 0, 0];
    let expected: Vec<String> = commands.iter().zip(answers).map(|(c, a)| format!("{c} {a}")).collect();
    assert_eq!(container.run(Way::Dlsym, &commands), expected);
}

#[test]
fn the_heap_of_kernels() {
    expect(Way::Linked, &[("heap:134217728", 0), ("alloc:134217729", 2), ("heap:268435456", 0), ("alloc:1", 2)]);
}

#[test]
fn stream_ordered_memory_counts_for_what_its_pool_has() {
    in_each_way(&[
        ("async:268435456", 0),
        ("alloc:1", 2),
        ("freeasync", 0),
        // memory that the pool keeps until the stream was waited for is given back before anything is refused
        ("alloc:268435456", 0),
        ("free", 0),
        ("keep", 0),
        ("async:201326592", 0),
        ("freeasync", 0),
        ("sync", 0),
        // the pool keeps 192 MiB, which it can use again
        ("async:201326592", 0),
        ("async:67108864", 0),
        ("async:1", 2),
    ]);
}

#[test]
fn pools_of_the_hosts_memory_do_not_count() {
    expect(
        Way::Dlsym,
        &[("hostpool", 0), ("frompool:1073741824", 0), ("alloc:268435456", 0), ("freeasync", 0), ("dropool", 0)],
    );
}

/// The driver takes back what the pools of a device had handed out.
#[test]
fn a_reset_of_the_primary_context_empties_its_pools() {
    in_each_way(&[
        ("keep", 0),
        ("async:201326592", 0),
        ("alloc:67108864", 0),
        ("reset", 0),
        ("primary", 0),
        ("async:201326592", 0),
        ("alloc:67108864", 0),
        ("alloc:1", OUT_OF_MEMORY),
    ]);
}

#[test]
fn pools_of_ones_own() {
    in_each_way(&[
        ("pool", 0),
        ("keep", 0),
        ("frompool:134217728", 0),
        ("frompool:134217728", 0),
        ("frompool:512", 2),
        ("freeasync", 0),
        ("alloc:134217728", 0),
        ("free", 0),
        ("trim", 0),
        ("alloc:134217728", 0),
        ("free", 0),
        ("dropool", 0),
        // memory that was handed out of the pool outlives it
        ("alloc:134217729", 2),
        ("free", 0),
        ("alloc:268435456", 0),
    ]);
}

#[test]
fn graphs_take_memory_when_they_run() {
    for how in ["graph", "node", "capture"] {
        let large = format!("{how}:268435456");
        in_each_way(&[
            (&large, 0),
            ("alloc:268435456", 0),
            ("launch", 2),
            ("free", 0),
            ("launch", 0),
            ("launch", 0),
            ("graphtrim", 0),
            ("alloc:268435456", 0),
            ("launch", 2),
        ]);
    }
}

#[test]
fn what_graphs_keep_is_given_back_before_anything_is_refused() {
    expect(Way::PerThread, &[("graph:268435456", 0), ("launch", 0), ("alloc:268435456", 0)]);
}

#[test]
fn a_context_takes_its_memory_with_it() {
    in_each_way(&[
        ("alloc:268435456", 0),
        ("reset", 0),
        ("context", 0),
        ("alloc:268435456", 0),
        ("array:64:64:1:1", 2),
        ("destroy", 0),
        ("context", 0),
        ("array:4096:4096:32:4", 0),
    ]);
}

#[test]
fn the_share_is_what_programs_see_of_the_card() {
    for way in WAYS {
        let container = Container::new(7680 * MIB, 50, 50);
        let lines = container.run(way, &["alloc:1073741824", "info", "total", "nvml"]);
        let (total, used) = (7680 * MIB, 1024 * MIB);
        assert_eq!(
            lines,
            [
                "alloc:1073741824 0".to_owned(),
                format!("info {} of {total}", total - used),
                "info 0".to_owned(),
                format!("total {total}"),
                "total 0".to_owned(),
                format!("nvml {used} of {total}, {used} of {total}"),
                "nvml 0".to_owned(),
            ]
        );
    }
}

#[test]
fn a_card_with_less_left_than_the_share_says_so_itself() {
    let container = Container::new(32 << 30, 50, 50);
    let lines = container.run(Way::Linked, &["alloc:17179869184", "alloc:1", "free", "alloc:512", "info"]);
    assert_eq!(lines[..3], ["alloc:17179869184 0", "alloc:1 2", "free 0"]);
    assert_eq!(lines[4], format!("info {} of {}", (16_u64 << 30) - 2 * MIB, 16_u64 << 30));
}

#[test]
fn a_program_in_rust_gets_its_share_and_no_more_with_all_its_threads() {
    let container = Container::new(CAP, 100, 100);
    let output = container.program(&Built::get().rust, &[]).output().unwrap();
    let expected = format!("total {CAP}\nfree {CAP}\ntaken {CAP} 2\ntaken {CAP} 2\n");
    assert_eq!(String::from_utf8_lossy(&output.stdout), expected, "{output:?}");
    assert_eq!(container.report().used, 0);
}
