//! Each scenario in every interleaving with so many preemptions at most.

#![allow(clippy::unwrap_used, reason = "a test may stop at once")]

use kerf_limiter_interleavings::scenarios;
use kerf_limiter_interleavings::schedule::{Actor, Scenario, explore};

#[track_caller]
fn holds(preemptions: usize, scenario: fn() -> Scenario) {
    let began = std::time::Instant::now();
    let executions = explore(preemptions, scenario).unwrap();
    println!("{executions} executions in {:?}", began.elapsed());
    assert!(executions > 100, "{executions} are not all");
}

#[test]
fn two_reservations_of_which_one_fits() {
    holds(4, scenarios::two_that_fit_one);
}

#[test]
fn three_reservations_of_which_two_fit() {
    holds(2, scenarios::three_of_which_two_fit);
}

#[test]
fn a_release_beside_a_reservation() {
    holds(4, scenarios::a_release_beside_a_reservation);
}

#[test]
fn a_process_that_is_killed_in_a_reservation_leaves_nothing() {
    holds(2, scenarios::a_kill_in_a_reservation);
}

#[test]
fn an_exporter_that_frees_what_another_has_open() {
    holds(3, scenarios::an_exporter_that_frees);
}

#[test]
fn an_exporter_that_ended_is_cleared_beside_a_reservation() {
    holds(3, scenarios::an_exporter_that_ended);
}

#[test]
fn pools_that_are_met_for_the_first_time_near_the_cap() {
    holds(3, scenarios::pools_near_the_cap);
}

#[test]
fn a_pool_that_two_threads_meet_for_the_first_time_beyond_the_cap() {
    holds(3, scenarios::a_pool_beyond_the_cap);
}

/// That the search finds what it should.
#[test]
fn a_failure_is_found() {
    let failing = || Scenario { actors: vec![Actor::new(|| {})], check: Box::new(|| assert_eq!(1, 2, "no")) };
    assert!(explore(0, failing).unwrap_err().contains("no"));
}
