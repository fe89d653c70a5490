//! What whoever starts the program wrongly is told.

use kerf_testkit::usage::told;

#[test]
fn wrong_usage_is_one_message_and_has_its_exit_status() {
    let wrong: [(&[&str], &str); 3] = [
        (&["--node-name=n"], "error: no cluster: give --kubeconfig, or run in a pod"),
        (
            &["--node-name=n", "--kubeconfig=/nonexistent/file"],
            "error: --kubeconfig /nonexistent/file cannot be read",
        ),
        (&[], "--node-name"),
    ];
    for (flags, part) in wrong {
        let (status, said) = told(env!("CARGO_BIN_EXE_kerf-plugin"), flags).unwrap();
        assert_eq!(status, Some(2), "{flags:?}: {said}");
        assert!(said.contains(part) && said.lines().count() == 1, "{flags:?}: {said}");
    }
}
