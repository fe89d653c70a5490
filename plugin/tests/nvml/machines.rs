//! Old and odd machines: each GPU is offered as far as its driver tells enough of it, or left out with the reason; the
//! others are offered all the same.

use kerf::device::Health;
use kerf::ids::DeviceId;
use kerf::units::Mib;
use kerf_plugin::testing::backend::Backend;
use kerf_plugin::testing::nvidia::files::FilesOptions;
use kerf_plugin::testing::nvidia::nvml::{Nvidia, NvidiaOptions};
use kerf_plugin::testing::scan::Remark;
use kerf_plugin::testing::scanner::Files as _;
use serde_json::json;

use crate::machine::{Machine, ids, left_out, library, notes, settled};

fn strings(told: &[(&str, &'static str)]) -> Vec<(String, &'static str)> {
    told.iter().map(|(subject, code)| ((*subject).to_owned(), *code)).collect()
}

fn first() -> DeviceId {
    DeviceId::from("GPU-0")
}

fn memory(backend: &Nvidia) -> Vec<(String, Mib)> {
    backend.discover().unwrap().into_iter().map(|host| (host.device.id.to_string(), host.device.memory)).collect()
}

const NO_MEMORY: &str = "nvmlDeviceGetMemoryInfo_v2 GPU-0 3\nnvmlDeviceGetMemoryInfo GPU-0 3\n\
                         nvmlDeviceGetSupportedEventTypes GPU-0 3\n";

/// GB10: the memory is the machine's, and there are no events.
#[test]
fn a_card_without_memory_of_its_own_is_offered_and_a_person_may_say_how_much_it_has() {
    let machine = Machine::new();
    machine.answers(NO_MEMORY);
    let backend = machine.backend();
    assert_eq!(memory(&backend), [("GPU-0".to_owned(), Mib(0)), ("GPU-1".to_owned(), Mib(81920))]);
    assert_eq!(left_out(&backend), []);
    assert_eq!(notes(&backend), strings(&[("0000:3b:00.0", "no-memory-size"), ("0000:3b:00.0", "no-events")]));
    assert!(backend.health().unwrap().into_values().all(|health| health == Health::Healthy));
    let usage = backend.usage().unwrap();
    assert_eq!(usage.gpus[&first()].memory_total, None);
    settled(&backend);
    let told = Nvidia::new(NvidiaOptions { memory: Some(Mib(122_880)), ..machine.options() });
    // what the driver tells is not overruled
    assert_eq!(memory(&told), [("GPU-0".to_owned(), Mib(122_880)), ("GPU-1".to_owned(), Mib(81920))]);
    assert_eq!(notes(&told), strings(&[("0000:3b:00.0", "no-events")]));
}

#[test]
fn such_a_card_is_ill_once_it_is_lost() {
    let machine = Machine::new();
    machine.answers(NO_MEMORY);
    let backend = machine.backend();
    backend.discover().unwrap();
    let lost = NO_MEMORY.replace("Info_v2 GPU-0 3", "Info_v2 GPU-0 15");
    machine.answers(&lost);
    assert_eq!(backend.health().unwrap()[&first()], Health::Unhealthy);
    machine.answers(NO_MEMORY);
    assert_eq!(backend.health().unwrap()[&first()], Health::Healthy);
}

/// Jetson has neither a minor number nor a PCI address; the second card is an ordinary one.
#[test]
fn a_card_without_a_minor_number_is_left_out_with_the_reason_and_the_others_are_offered() {
    let machine = Machine::described(&json!({ "cards": [
        { "vendor": "nvidia", "minor": 1, "address": "0000:3c:00.0", "uuid": "GPU-1" },
    ] }));
    machine.answers("nvmlDeviceGetMinorNumber GPU-0 3\nnvmlDeviceGetPciInfo_v3 GPU-0 3\n");
    let backend = machine.backend();
    assert_eq!(ids(&backend.discover().unwrap()), ["GPU-1"]);
    assert_eq!(left_out(&backend), strings(&[("GPU-0", "no-minor-number")]));
    let remarks = backend.remarks();
    let why = remarks.iter().find(|remark| remark.left_out).map(|Remark { why, .. }| why.to_string());
    assert!(why.unwrap().contains("Jetson"));
    settled(&backend);
}

#[test]
fn the_only_device_file_belongs_to_the_only_card() {
    let machine = Machine::described(&json!({ "dev": ["nvidia3", "nvidiactl"] }));
    machine.answers("nvmlDeviceGetMinorNumber GPU-0 3\nnvmlDeviceGetPciInfo_v3 GPU-0 3\n");
    let backend = machine.backend();
    // of two cards it may be either's
    assert_eq!(ids(&backend.discover().unwrap()), Vec::<&str>::new());
    assert_eq!(left_out(&backend).first(), Some(&("GPU-0".to_owned(), "no-minor-number")));
    machine.single();
    let backend = machine.backend();
    let found = backend.discover().unwrap();
    assert_eq!(ids(&found), ["GPU-0"]);
    assert_eq!((found[0].device.index, found[0].pci.as_str()), (3, ""));
    assert_eq!(found[0].nodes, [std::path::PathBuf::from("/dev/nvidia3")]);
    assert_eq!(left_out(&backend), []);
}

/// WSL2: the only device file is the hypervisor's.
#[test]
fn in_wsl_every_card_is_left_out_by_its_address() {
    let machine = Machine::described(&json!({ "dev": ["dxg"] }));
    machine.answers("nvmlDeviceGetMinorNumber * 3\n");
    let backend = machine.backend();
    assert_eq!(backend.discover().unwrap(), []);
    let both = [("0000:3b:00.0", "no-minor-number"), ("0000:3c:00.0", "no-minor-number")];
    assert_eq!(left_out(&backend), strings(&both));
    settled(&backend);
}

#[test]
fn what_the_library_does_not_tell_of_a_cards_place_the_drivers_files_do() {
    let machine = Machine::new();
    machine.answers("nvmlDeviceGetMinorNumber GPU-1 3\nnvmlDeviceGetPciInfo_v3 GPU-1 999\n");
    let backend = machine.backend();
    let found = backend.discover().unwrap();
    assert_eq!(ids(&found), ["GPU-0", "GPU-1"]);
    assert_eq!((found[1].pci.as_str(), found[1].device.index), ("0000:3c:00.0", 1));
    assert_eq!(found[1].nodes, [std::path::PathBuf::from("/dev/nvidia1")]);
    assert_eq!(left_out(&backend), []);
}

/// Driver 470, and older ones that know neither of the newer functions for processes.
#[test]
fn an_older_driver_is_asked_by_its_own_functions() {
    let (memory_2, three) = ("nvmlDeviceGetMemoryInfo_v2", "nvmlDeviceGetComputeRunningProcesses_v3");
    let two = "nvmlDeviceGetComputeRunningProcesses_v2";
    for without in [vec![memory_2, three], vec![memory_2, three, two]] {
        let machine = Machine::new().without(&without);
        let backend = machine.backend();
        assert_eq!(memory(&backend), [("GPU-0".to_owned(), Mib(81920)), ("GPU-1".to_owned(), Mib(81920))]);
        assert_eq!(backend.remarks(), []);
        let usage = backend.usage().unwrap();
        assert_eq!(usage.gpus[&first()].memory_used, Some(4096), "as only the older function says");
        let held: Vec<_> =
            usage.processes.iter().map(|process| (process.pid, process.device.as_str(), process.memory)).collect();
        assert_eq!(held, [(40, "GPU-0", Some(8192)), (41, "GPU-1", None)], "{without:?}");
        settled(&backend);
    }
}

#[test]
fn a_card_that_answers_some_questions_is_left_out_with_the_drivers_words() {
    for (answers, subject) in [
        // it answers nothing, and the bus says where it is
        ("nvmlDeviceGetHandleByIndex_v2 1 15\nnvmlDeviceGetHandleByPciBusId_v2 0000:3c:00.0 15\n", "0000:3c:00.0"),
        ("nvmlDeviceGetHandleByIndex_v2 1 15\n", "0000:3c:00.0"),
        ("nvmlDeviceGetUUID GPU-1 15\n", "0000:3c:00.0"),
        // it answers for its id and place alone
        ("nvmlDeviceGetMemoryInfo_v2 GPU-1 15\n", "0000:3c:00.0"),
        ("nvmlDeviceGetMemoryInfo_v2 GPU-1 15\nnvmlDeviceGetPciInfo_v3 GPU-1 15\n", "0000:3c:00.0"),
    ] {
        let machine = Machine::new();
        machine.answers(answers);
        let backend = machine.backend();
        assert_eq!(ids(&backend.discover().unwrap()), ["GPU-0"], "{answers}");
        assert_eq!(left_out(&backend), strings(&[(subject, "no-answer")]), "{answers}");
        let remarks = backend.remarks();
        let why = remarks.iter().find(|remark| remark.left_out).unwrap().why.to_string();
        assert!(why.contains("fell off the bus"), "{why}");
        settled(&backend);
    }
    // without a bus to look at, the library's own number names it
    let machine = Machine::described(&json!({ "dev": ["nvidiactl", "nvidia0"] }));
    machine.answers("nvmlDeviceGetHandleByIndex_v2 1 999\n");
    let backend = machine.backend();
    assert_eq!(ids(&backend.discover().unwrap()), ["GPU-0"]);
    assert_eq!(left_out(&backend), strings(&[("GPU 1", "no-answer")]));
}

#[test]
fn a_card_without_its_device_file_is_left_out_where_the_hosts_files_are_seen() {
    let machine = Machine::new();
    machine.remove("dev/nvidia1");
    let backend = machine.backend();
    assert_eq!(ids(&backend.discover().unwrap()), ["GPU-0"]);
    assert_eq!(left_out(&backend), strings(&[("0000:3c:00.0", "no-device-file")]));
    std::fs::remove_dir_all(machine.path("dev")).unwrap();
    assert_eq!(ids(&backend.discover().unwrap()), ["GPU-0", "GPU-1"]);
    assert_eq!(left_out(&backend), []);
    assert_eq!(notes(&backend), strings(&[("0000:3b:00.0", "no-device-file"), ("0000:3c:00.0", "no-device-file")]));
}

#[test]
fn every_card_of_the_bus_is_offered_or_told_of() {
    let other = |address: &str, driver: &str| json!({ "vendor": "nvidia", "minor": 9, "address": address, "driver": driver });
    let mut cards = vec![
        json!({ "vendor": "nvidia", "minor": 0, "address": "0000:3b:00.0", "uuid": "GPU-0" }),
        json!({ "vendor": "nvidia", "minor": 1, "address": "0000:3c:00.0", "uuid": "GPU-1" }),
        // the driver has it and the library does not
        json!({ "vendor": "nvidia", "minor": 4, "address": "0000:5f:00.0", "uuid": "GPU-4" }),
        // the driver has its files still
        json!({ "vendor": "nvidia", "minor": 5, "address": "0000:60:00.0", "uuid": "GPU-5" }),
    ];
    cards.extend([other("0000:5e:00.0", "vfio-pci"), other("0000:5d:00.0", "nouveau"), other("0000:5c:00.0", "")]);
    let tree = json!({ "cards": cards, "without": ["sys/bus/pci/devices/0000:60:00.0"] });
    let machine = Machine::described(&tree);
    let backend = machine.backend();
    assert_eq!(ids(&backend.discover().unwrap()), ["GPU-0", "GPU-1"]);
    let others = [
        ("0000:5c:00.0", "no-driver"),
        ("0000:5d:00.0", "unknown-driver"),
        ("0000:5e:00.0", "unknown-driver"),
        ("0000:5f:00.0", "not-listed"),
        ("0000:60:00.0", "lost"),
    ];
    assert_eq!(left_out(&backend), strings(&others));
    // the driver is missing
    let none = Nvidia::new(NvidiaOptions { library: Some("/nonexistent.so".into()), ..machine.options() });
    let error = none.discover().unwrap_err();
    assert_eq!(error.code(), "unavailable");
    let told = left_out(&none);
    let unavailable = ["0000:3b:00.0", "0000:3c:00.0", "0000:5f:00.0"];
    assert!(unavailable.iter().all(|card| told.contains(&((*card).to_owned(), "driver-unavailable"))), "{told:?}");
    assert_eq!(told.len(), 7, "{told:?}");
}

/// By the driver's files, which tell no memory, so that a person has to.
#[test]
fn a_card_that_is_configured_away_is_told_of() {
    let machine = Machine::new();
    let information = machine.path("proc/driver/nvidia/gpus/0000:3c:00.0/information");
    let text = std::fs::read_to_string(&information).unwrap();
    std::fs::write(&information, text.replace("GPU Excluded:\t No", "GPU Excluded:\t Yes")).unwrap();
    let roots = machine.options().roots;
    let files = FilesOptions { roots, memory: Some(Mib(4096)), ..FilesOptions::default() };
    let scan = files.scan().unwrap();
    assert_eq!(ids(&scan.devices), ["GPU-0"]);
    assert_eq!(scan.devices[0].device.memory, Mib(4096));
    let told: Vec<_> = scan.remarks.iter().map(|remark| (remark.subject.as_str(), remark.why.code())).collect();
    assert_eq!(told, [("0000:3c:00.0", "excluded")]);
}

#[test]
fn a_card_in_mig_mode_without_instances_is_told_of() {
    let machine = Machine::new();
    machine.answers("nvmlDeviceGetMigDeviceHandleByIndex GPU-1 6\n");
    let backend = Nvidia::new(NvidiaOptions { mig: true, ..machine.options() });
    assert_eq!(ids(&backend.discover().unwrap()), ["GPU-0"]);
    assert_eq!(left_out(&backend), strings(&[("0000:3c:00.0", "no-instances")]));
}

#[test]
fn an_instance_that_does_not_answer_is_no_new_cut() {
    let machine = Machine::new();
    let backend = Nvidia::new(NvidiaOptions { mig: true, ..machine.options() });
    // before it was known
    machine.answers("nvmlDeviceGetUUID MIG-b 999\n");
    assert_eq!(ids(&backend.discover().unwrap()), ["GPU-0", "MIG-a"]);
    assert_eq!(left_out(&backend), strings(&[("GPU 1 instance 2", "no-answer")]));
    machine.answers("");
    assert_eq!(ids(&backend.discover().unwrap()), ["GPU-0", "MIG-a", "MIG-b"]);
    machine.answers("nvmlDeviceGetUUID MIG-b 999\nnvmlDeviceGetMemoryInfo_v2 MIG-b 999\n");
    assert_eq!(ids(&backend.discover().unwrap()), ["GPU-0", "MIG-a"]);
    assert_eq!(left_out(&backend), strings(&[("MIG-b", "no-answer")]));
    settled(&backend);
    machine.answers("");
    assert_eq!(ids(&backend.discover().unwrap()), ["GPU-0", "MIG-a", "MIG-b"]);
    assert_eq!(left_out(&backend), []);
}

#[test]
fn after_a_new_cut_only_its_instances_are_known() {
    let machine = Machine::new();
    let backend = Nvidia::new(NvidiaOptions { mig: true, ..machine.options() });
    assert_eq!(ids(&backend.discover().unwrap()), ["GPU-0", "MIG-a", "MIG-b"]);
    machine.cut_anew();
    assert_eq!(ids(&backend.discover().unwrap()), ["GPU-0", "MIG-c"]);
    settled(&backend);
}

fn set_module(machine: &Machine, version: &str) {
    let line = format!("NVRM version: NVIDIA UNIX x86_64 Kernel Module  {version}  Fri May 31 09:35:42 UTC 2024\n");
    std::fs::write(machine.path("proc/driver/nvidia/version"), line).unwrap();
}

#[test]
fn after_a_driver_upgrade_the_new_library_is_loaded() {
    let machine = Machine::new();
    set_module(&machine, "535.161.07");
    let backend = machine.backend();
    backend.discover().unwrap();
    let (before, used) = (machine.inits(), |backend: &Nvidia| backend.usage().unwrap().gpus[&first()].memory_used);
    assert_eq!(used(&backend), Some(0));
    // told apart by what it tells of memory; the running one is used as long as its module is there
    library(&machine.path(""), &["nvmlDeviceGetMemoryInfo_v2"]);
    backend.discover().unwrap();
    assert_eq!((machine.inits(), used(&backend)), (before, Some(0)));
    set_module(&machine, "550.90.07");
    assert_eq!(ids(&backend.discover().unwrap()), ["GPU-0", "GPU-1"]);
    assert!(machine.inits() > before);
    assert_eq!(used(&backend), Some(4096));
}

#[test]
fn a_library_and_a_module_of_two_versions_are_told_with_what_to_do() {
    let machine = Machine::new();
    set_module(&machine, "550.90.07");
    machine.answers("nvmlInit_v2 * 18\n");
    let backend = machine.backend();
    let error = backend.discover().unwrap_err().to_string();
    assert!(error.contains("550.90.07") && error.contains("delete this pod"), "{error}");
    let both = [("0000:3b:00.0", "driver-unavailable"), ("0000:3c:00.0", "driver-unavailable")];
    assert_eq!(left_out(&backend), strings(&both));
    // only a discovery tries again
    let before = machine.inits();
    for _ in 0..5 {
        assert_eq!(backend.health().unwrap_err().code(), "unavailable");
        assert_eq!(backend.usage().unwrap_err().code(), "unavailable");
    }
    assert_eq!(machine.inits(), before);
    machine.answers("");
    assert_eq!(ids(&backend.discover().unwrap()), ["GPU-0", "GPU-1"]);
}
