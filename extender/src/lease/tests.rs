use serde_json::json;

use super::*;

fn lease(holder: &str, renewed: u32) -> Lease {
    let renewed = format!("2026-01-01T00:00:{renewed:02}.000000Z");
    let spec = json!({ "holderIdentity": holder, "renewTime": renewed, "leaseDurationSeconds": 15 });
    serde_json::from_value(json!({ "metadata": {}, "spec": spec })).unwrap()
}

#[test]
fn it_is_active_while_its_own_scheduler_renews_the_lease() {
    let election = Election::new("kerf-system/kerf-scheduler".parse().unwrap(), "pod-a".to_owned());
    let standby = |active: &str| Standing::Standby { active: active.to_owned() };
    assert_eq!(election.standing(), Standing::Unknown);
    let begun = Instant::now();
    let after = |seconds| begun + Duration::from_secs(seconds);
    let standing = |holder: &str, renewed, seconds| {
        election.apply(lease(holder, renewed), after(seconds));
        election.standing_at(after(seconds))
    };
    assert_eq!(standing("pod-b_8c3f", 1, 0), standby("pod-b"));
    assert_eq!(standing("pod-a_11d0", 2, 1), Standing::Active);
    assert_eq!(election.standing_at(after(16)), Standing::Active);
    // seen again, as after a list, and not renewed
    assert_eq!(standing("pod-a_11d0", 2, 15), Standing::Active);
    assert_eq!(election.standing_at(after(17)), Standing::Nobody);
    assert_eq!(standing("pod-a_11d0", 3, 18), Standing::Active);
    // given back
    assert_eq!(standing("", 4, 19), Standing::Nobody);
    // a name that only begins like its own
    assert_eq!(standing("pod-a-2_77aa", 5, 20), standby("pod-a-2"));
}

#[test]
fn what_the_last_holder_has_sent_is_waited_for_where_it_gave_the_lease_back() {
    let election = Election::new("kerf-system/kerf-scheduler".parse().unwrap(), "pod-a".to_owned());
    let begun = Instant::now();
    let after = |seconds| begun + Duration::from_secs(seconds);
    let write = Duration::from_secs(3);
    let unsettled = |seconds| election.unsettled(after(seconds), write);
    // there is no lease yet: the first scheduler of all
    assert_eq!(unsettled(0), None);
    election.apply(lease("pod-b_8c3f", 1), after(0));
    election.apply(lease("", 2), after(10));
    election.apply(lease("pod-a_11d0", 3), after(11));
    assert_eq!(unsettled(11), Some(after(13)));
    assert_eq!(unsettled(13), None);
    // renewed
    election.apply(lease("pod-a_11d0", 4), after(14));
    assert_eq!(unsettled(14), None);

    // its scheduler was faster than the news
    election.apply(lease("pod-b_8c3f", 5), after(20));
    assert_eq!(unsettled(21), Some(after(24)));
    assert_eq!(unsettled(22), Some(after(24)));
    election.apply(lease("", 6), after(22));
    election.apply(lease("pod-a_11d0", 7), after(22));
    assert_eq!(unsettled(22), Some(after(25)));

    // the news are lost, or a call is not the scheduler's: not every call is held up
    election.apply(lease("pod-b_8c3f", 8), after(30));
    assert_eq!(unsettled(30), Some(after(33)));
    election.apply(lease("pod-b_8c3f", 9), after(32));
    assert_eq!(unsettled(33), None);
    assert_eq!(unsettled(34), None);

    // the lease ran out: its holder had stopped before
    election.apply(lease("pod-a_11d0", 10), after(50));
    assert_eq!(unsettled(50), None);
}

#[test]
fn nothing_is_written_without_the_lease_or_on_what_was_known_before_a_pause() {
    let begun = Instant::now();
    let election = Election::new("kerf-system/kerf-scheduler".parse().unwrap(), "pod-a".to_owned());
    let after = |millis| begun + Duration::from_millis(millis);
    let write = Duration::from_secs(3);
    // it runs, as the task of its own tells
    let run = |from: u64, to: u64| (from..=to).step_by(100).for_each(|at| assert!(!election.look(after(at))));
    let refused = |at| election.may_write_at(after(at), write).err().map(|error| error.to_string());
    let term = |holder: &str, renewed, transitions| {
        let mut lease = lease(holder, renewed);
        lease.spec.as_mut().unwrap().lease_transitions = Some(transitions);
        lease
    };
    assert!(refused(0).unwrap().contains("not seen yet"));
    election.apply(term("pod-b_8c3f", 1, 1), after(0));
    assert!(refused(0).unwrap().contains("not the one in use"));
    election.apply(term("pod-a_11d0", 2, 2), after(0));
    assert_eq!(refused(0), None);
    run(0, 2_000);
    // stopped for two seconds; the news that had come meanwhile are no proof, nor is what was asked for before
    election.apply(term("pod-a_11d0", 3, 2), after(4_000));
    assert!(refused(4_000).unwrap().contains("was stopped"));
    election.resume(Some(term("pod-a_11d0", 3, 2)), after(2_000), after(4_050));
    assert!(refused(4_050).unwrap().contains("was stopped"));
    election.resume(Some(term("pod-a_11d0", 3, 2)), after(4_050), after(4_100));
    assert_eq!(refused(4_100), None);
    // another one has it by now
    assert!(refused(7_000).unwrap().contains("was stopped"));
    election.resume(Some(term("pod-b_8c3f", 4, 3)), after(7_000), after(7_100));
    assert!(refused(7_100).unwrap().contains("not the one in use"));
    // stopped again while it was read
    run(7_100, 8_000);
    assert!(refused(10_000).unwrap().contains("was stopped"));
    election.resume(Some(term("pod-b_8c3f", 5, 3)), after(10_000), after(12_000));
    assert!(refused(12_000).unwrap().contains("was stopped"));
    election.resume(Some(term("pod-a_11d0", 6, 4)), after(12_000), after(12_100));
    // it has it again, and what the other has bound is on its way
    assert!(refused(12_100).unwrap().contains("another one"));
    run(12_100, 15_100);
    assert_eq!(refused(15_100), None);
    // in the time of a pause it was deleted
    assert!(refused(20_000).is_some());
    election.resume(None, after(20_000), after(20_100));
    assert!(refused(20_100).unwrap().contains("not seen yet"));
}

#[test]
fn of_a_holder_a_name_is_shown_on_one_line() {
    let election = Election::new("kerf-system/kerf-scheduler".parse().unwrap(), "pod-a".to_owned());
    election.apply(lease(&format!("x\n\0{}", "y".repeat(200_000)), 1), Instant::now());
    let text = election.text();
    assert!(text.starts_with("standby: x\\n\\0yyy") && text.len() < 400, "{}", text.len());
}
