//! A library whose answers contradict each other, or have no bounds: no GPU is offered twice or in the place of another, and
//! each that is not offered has a reason.

use std::process::Command;

use kerf_plugin::testing::backend::{Backend, Part};
use kerf_plugin::testing::nvidia::nvml::{Nvidia, NvidiaOptions};
use serde_json::json;

use crate::machine::{Machine, ids, left_out, settled};

const FIRST: &str = "0000:3b:00.0";
const SECOND: &str = "0000:3c:00.0";

/// What is offered and what is left out of a machine of two cards whose library says this.
fn look(says: &str, offered: &[&str], out: &[(&str, &str)]) {
    let machine = Machine::new();
    machine.says(says);
    let backend = machine.backend();
    assert_eq!(ids(&backend.discover().unwrap()), offered, "{says}");
    let told = left_out(&backend);
    let told: Vec<(&str, &str)> = told.iter().map(|(subject, code)| (subject.as_str(), *code)).collect();
    assert_eq!(told, out, "{says}");
    settled(&backend);
    // neither is forgotten: what is right again is offered again
    machine.says("");
    assert_eq!(ids(&backend.discover().unwrap()), ["GPU-0", "GPU-1"], "{says}");
    assert_eq!(left_out(&backend), [], "{says}");
}

#[test]
fn of_two_cards_with_one_device_file_neither_is_offered() {
    look("nvmlDeviceGetMinorNumber GPU-1 0", &[], &[(FIRST, "named-twice"), (SECOND, "named-twice")]);
}

#[test]
fn of_two_cards_with_one_uuid_neither_is_offered() {
    look("nvmlDeviceGetUUID GPU-1 GPU-0", &[], &[(FIRST, "named-twice"), (SECOND, "named-twice")]);
}

#[test]
fn of_two_cards_at_one_address_neither_is_offered() {
    let says = "nvmlDeviceGetPciInfo_v3 GPU-1 00000000:3B:00.0";
    look(says, &[], &[(FIRST, "named-twice"), (FIRST, "named-twice"), (SECOND, "not-listed")]);
}

/// A container is given what its variable names: a list, where there is a comma in it.
#[test]
fn a_card_without_a_uuid_that_containers_can_be_given_is_left_out() {
    for uuid in ["-", "GPU-0,GPU-1", "all;", "GPU-\u{fffd}"] {
        look(&format!("nvmlDeviceGetUUID GPU-1 {uuid}"), &["GPU-0"], &[(SECOND, "no-answer")]);
    }
}

#[test]
fn a_number_of_cards_or_instances_without_bounds_is_not_believed() {
    let machine = Machine::new();
    machine.says("nvmlDeviceGetCount_v2 * 4000000000\nnvmlDeviceGetMaxMigDeviceCount GPU-1 4000000000\n");
    let backend = Nvidia::new(NvidiaOptions { mig: true, ..machine.options() });
    assert_eq!(ids(&backend.discover().unwrap()), ["GPU-0", "MIG-a", "MIG-b"]);
    let told = left_out(&backend);
    assert_eq!(told.len(), 511);
    for expected in [("GPU 2", "no-answer"), ("GPU 511", "no-answer"), ("GPU 512", "too-many")] {
        assert!(told.contains(&(expected.0.to_owned(), expected.1)), "{expected:?}");
    }
}

#[test]
fn a_card_in_a_domain_of_more_than_four_digits_is_itself() {
    let machine = Machine::described(&json!({ "cards": [
        { "vendor": "nvidia", "minor": 0, "address": "10000:3b:00.0", "uuid": "GPU-0", "numa": 1 },
        { "vendor": "nvidia", "minor": 1, "address": "0000:3b:00.0", "uuid": "GPU-1" },
    ] }));
    machine
        .says("nvmlDeviceGetPciInfo_v3 GPU-0 00010000:3B:00.0\nnvmlDeviceGetPciInfo_v3 GPU-1 00000000:3B:00.0\n");
    let backend = machine.backend();
    let found = backend.discover().unwrap();
    let places: Vec<_> = found.iter().map(|host| (host.pci.as_str(), host.device.numa)).collect();
    assert_eq!(places, [("10000:3b:00.0", Some(1)), ("0000:3b:00.0", Some(0))]);
    assert_eq!(left_out(&backend), []);
}

/// By its ids an instance's device files are known, and that it is no other.
#[test]
fn an_instance_whose_ids_the_library_does_not_tell_is_left_out() {
    let machine = Machine::new();
    machine.answers("nvmlDeviceGetGpuInstanceId MIG-a 999\n");
    let backend = Nvidia::new(NvidiaOptions { mig: true, ..machine.options() });
    assert_eq!(ids(&backend.discover().unwrap()), ["GPU-0", "MIG-b"]);
    assert_eq!(left_out(&backend), [("MIG-a".to_owned(), "no-answer")]);
    let old = Machine::new().without(&["nvmlDeviceGetHandleByUUID"]);
    let backend = Nvidia::new(NvidiaOptions { mig: true, ..old.options() });
    assert_eq!(ids(&backend.discover().unwrap()), ["GPU-0"]);
    assert_eq!(left_out(&backend), ["MIG-a", "MIG-b"].map(|id| (id.to_owned(), "no-answer")));
    // drivers before 470 have them in its UUID
    old.says("nvmlDeviceGetUUID MIG-a MIG-GPU-1/7/2\n");
    let found = backend.discover().unwrap();
    assert_eq!(ids(&found), ["GPU-0", "MIG-GPU-1/7/2"]);
    assert!(matches!(found[1].origin.part, Part::Instance { gi: 7, ci: 2, .. }), "{:?}", found[1].origin);
}

#[test]
fn a_card_whose_instances_all_fail_is_told_of_by_them_alone() {
    let machine = Machine::new();
    machine.answers("nvmlDeviceGetMigDeviceHandleByIndex GPU-1 999\n");
    let backend = Nvidia::new(NvidiaOptions { mig: true, ..machine.options() });
    assert_eq!(ids(&backend.discover().unwrap()), ["GPU-0"]);
    let told = left_out(&backend);
    assert_eq!(told.len(), 7);
    assert!(told.iter().all(|(subject, _)| subject.starts_with("GPU 1 instance ")), "{told:?}");
}

/// What the real program says of a machine.
fn doctor(machine: &Machine, flags: &[&str]) -> String {
    let root = |flag: &str, name: &str| format!("--{flag}={}", machine.path(name).display());
    let output = Command::new(env!("CARGO_BIN_EXE_kerf-plugin"))
        .args(["doctor", "--profile=nvidia", "--mig-strategy=mixed"])
        .args([root("sys-root", "sys"), root("dev-root", "dev"), root("proc-root", "proc")])
        .args([root("nvml-library", "libnvidia-ml.so.1"), root("kubelet-dir", "kubelet")])
        .args(flags)
        .output();
    String::from_utf8(output.unwrap().stdout).unwrap()
}

/// The driver's files show GPUs still that do not work, and instances under other ids than those that pods have.
#[test]
fn what_the_library_says_not_to_work_is_not_offered_by_the_drivers_files() {
    for (answers, reason) in [
        ("nvmlInit_v2 * 18\n", "driver-unavailable"),
        ("nvmlDeviceGetMemoryInfo_v2 * 15\n", "no-answer"),
        ("nvmlDeviceGetCount_v2 * 999\n", "driver-unavailable"),
    ] {
        let machine = Machine::new();
        machine.answers(answers);
        let report = doctor(&machine, &[]);
        assert!(!report.contains("nvidia.com/"), "{answers}: {report}");
        assert!(report.contains(&format!("left out: {FIRST} [{reason}]")), "{answers}: {report}");
    }
    let machine = Machine::new();
    machine.remove("libnvidia-ml.so.1");
    assert!(doctor(&machine, &[]).contains("nvidia.com/gpu (nvidia): 2 offered"));
}

/// The real program: who leaves a GPU out means all of it, however it is divided.
#[test]
fn a_gpu_that_is_named_by_its_uuid_is_named_with_its_instances() {
    let machine = Machine::new();
    let shown = |flag: &str| doctor(&machine, &[flag]);
    for flag in ["--exclude-gpus=GPU-1", "--exclude-gpus=nvidia1", "--include-gpus=GPU-0"] {
        let report = shown(flag);
        assert!(report.contains("nvidia.com/gpu (nvidia): 1 offered"), "{flag}: {report}");
        assert!(!report.contains("nvidia.com/mig-") && !report.contains("names-none"), "{flag}: {report}");
    }
    let report = shown("--include-gpus=uuid=GPU-1");
    assert!(report.contains("nvidia.com/mig-3g.40gb (nvidia): 1 offered"), "{report}");
    assert!(!report.contains("nvidia.com/gpu (nvidia)"), "{report}");
}
