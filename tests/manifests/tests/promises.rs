//! Every test that `docs/promises.md` names exists.

#![allow(clippy::panic, clippy::unwrap_used, reason = "a test")]

#[test]
fn every_test_that_the_promises_name_is_there() {
    let root = kerf_manifests::root();
    let table = std::fs::read_to_string(root.join("docs/promises.md")).unwrap();
    let mut source = String::new();
    let mut found = 0;
    for row in table.lines().filter(|line| line.starts_with("| ")) {
        let Some(tests) = row.trim_end_matches('|').rsplit(" | ").next() else { continue };
        // text in backticks is a file, followed by the tests in it
        for name in tests.split('`').skip(1).step_by(2) {
            if name.contains('/') {
                source = std::fs::read_to_string(root.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
            } else {
                assert!(source.contains(&format!("fn {name}(")), "no test {name} in its file: {row}");
                found += 1;
            }
        }
    }
    assert!(found > 50, "{found} tests are named");
}
