//! The driver's errors (Xid), and machines where they are not reported.

use std::time::Duration;

use kerf::device::Health;
use kerf::ids::DeviceId;
use kerf_plugin::testing::backend::Backend;
use kerf_plugin::testing::nvidia::errors::ErrorPolicy;
use kerf_plugin::testing::nvidia::nvml::{Nvidia, NvidiaOptions};

use crate::machine::{Machine, eventually, ids, left_out, notes, settled};

fn policy(ignored: &str, counted: &str, lasting: &str) -> ErrorPolicy {
    let [ignored, counted, lasting] = [ignored, counted, lasting].map(|text| text.parse().unwrap());
    ErrorPolicy { ignored, counted, lasting }
}

fn health(backend: &Nvidia, id: &str) -> Health {
    backend.health().unwrap()[&DeviceId::from(id)]
}

fn falls_ill(backend: &Nvidia, id: &str) {
    eventually("the error counts", || health(backend, id) == Health::Unhealthy);
}

/// The quiet period is 5 minutes.
#[test]
fn a_critical_error_makes_its_card_unhealthy_and_an_applications_does_not() {
    let machine = Machine::new();
    let backend = machine.backend();
    backend.discover().unwrap();
    assert_eq!(backend.remarks(), []);
    machine.event("GPU-0", 31);
    machine.event("GPU-1", 94);
    falls_ill(&backend, "GPU-1");
    assert_eq!(health(&backend, "GPU-0"), Health::Healthy);
    // an error of no known card counts for each
    machine.event("-", 79);
    falls_ill(&backend, "GPU-0");
}

#[test]
fn an_administrator_chooses_which_errors_count_and_how_long() {
    let machine = Machine::new();
    let quiet_period = Duration::ZERO;
    let errors = policy("94", "31", "31");
    let backend = Nvidia::new(NvidiaOptions { errors, quiet_period, ..machine.options() });
    backend.discover().unwrap();
    // in the order of the events: the third has been taken when the fourth counts
    for xid in [94, 79, 13] {
        machine.event("GPU-1", xid);
    }
    machine.event("GPU-0", 31);
    falls_ill(&backend, "GPU-0");
    assert_eq!(health(&backend, "GPU-1"), Health::Healthy);
    // it is reset, and answers again
    machine.answers("nvmlDeviceGetUUID GPU-0 15\n");
    assert_eq!(health(&backend, "GPU-0"), Health::Unhealthy);
    machine.answers("");
    assert_eq!(health(&backend, "GPU-0"), Health::Unhealthy);
    backend.discover().unwrap();
    assert_eq!(health(&backend, "GPU-0"), Health::Unhealthy);
}

#[test]
fn events_that_cannot_be_waited_for_are_told_and_tried_again_without_starting_the_library() {
    let machine = Machine::new();
    machine.answers("nvmlEventSetCreate * 999\n");
    let backend = machine.backend();
    assert_eq!(ids(&backend.discover().unwrap()), ["GPU-0", "GPU-1"]);
    let both = ["0000:3b:00.0", "0000:3c:00.0"].map(|id| (id.to_owned(), "no-events"));
    assert_eq!(notes(&backend), both);
    assert_eq!(left_out(&backend), []);
    let before = machine.inits();
    settled(&backend);
    assert_eq!(machine.inits(), before, "the library is not started again");
    machine.answers("");
    backend.discover().unwrap();
    assert_eq!(notes(&backend), []);
    machine.event("GPU-0", 79);
    falls_ill(&backend, "GPU-0");
}

#[test]
fn what_was_reported_is_not_forgotten_when_the_events_end() {
    let machine = Machine::new();
    let backend = machine.backend();
    backend.discover().unwrap();
    machine.event("GPU-0", 79);
    falls_ill(&backend, "GPU-0");
    let before = machine.inits();
    machine.answers("nvmlEventSetWait_v2 * 999\n");
    eventually("the end is told", || {
        backend.discover().unwrap();
        notes(&backend).len() == 2
    });
    assert_eq!(health(&backend, "GPU-0"), Health::Unhealthy);
    assert_eq!(health(&backend, "GPU-1"), Health::Healthy);
    machine.answers("");
    eventually("they are waited for again", || {
        backend.discover().unwrap();
        notes(&backend).is_empty()
    });
    assert_eq!(machine.inits(), before);
    assert_eq!(health(&backend, "GPU-0"), Health::Unhealthy);
    machine.event("GPU-1", 79);
    falls_ill(&backend, "GPU-1");
}

#[test]
fn a_restart_of_the_driver_forgets_nothing() {
    let machine = Machine::new();
    let backend = machine.backend();
    backend.discover().unwrap();
    machine.event("GPU-0", 79);
    falls_ill(&backend, "GPU-0");
    machine.answers("nvmlDeviceGetCount_v2 * 9\n");
    assert_eq!(backend.discover().unwrap_err().code(), "unavailable");
    machine.answers("");
    backend.discover().unwrap();
    assert_eq!(health(&backend, "GPU-0"), Health::Unhealthy);
    assert_eq!(health(&backend, "GPU-1"), Health::Healthy);
}

#[test]
fn one_card_without_events_takes_them_from_no_other() {
    for answer in ["nvmlDeviceRegisterEvents GPU-0 999\n", "nvmlDeviceGetSupportedEventTypes GPU-0 999\n"] {
        let machine = Machine::new();
        machine.answers(answer);
        let backend = machine.backend();
        assert_eq!(ids(&backend.discover().unwrap()), ["GPU-0", "GPU-1"]);
        assert_eq!(notes(&backend), [("0000:3b:00.0".to_owned(), "no-events")]);
        machine.event("GPU-1", 79);
        falls_ill(&backend, "GPU-1");
        assert_eq!(health(&backend, "GPU-0"), Health::Healthy);
    }
}
