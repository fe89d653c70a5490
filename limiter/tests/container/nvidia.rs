//! NVIDIA's own libraries without a GPU: which functions they have, and which functions a program gets for them. Their
//! behaviour on a GPU is for `tests/gpu`.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::names::{Names, base, functions, unknown};
use crate::support::{Built, Container, MIB};

/// Folders with NVIDIA's libraries; empty where the machine has none.
pub fn libraries() -> Vec<PathBuf> {
    let named = std::env::var("KERF_NVIDIA_LIBRARIES").unwrap_or_default();
    let folders: Vec<_> = named.split(':').filter(|folder| !folder.is_empty()).map(PathBuf::from).collect();
    if folders.is_empty() {
        println!(
            "NOT RUN: KERF_NVIDIA_LIBRARIES names no folder with NVIDIA's libraries; limiter/tests/nvidia.sh gets them"
        );
    }
    folders
}

/// The output of `symbols.c` for these names.
fn answers(folder: &Path, names: &BTreeSet<String>, limited: bool) -> (String, Vec<[String; 5]>) {
    let container = Container::new(1024 * MIB, 50, 50);
    let program = container.root.path().join("symbols");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/container/symbols.c");
    let mut cc = Command::new("cc");
    assert!(cc.args(["-O1", "-Wall", "-o"]).arg(&program).arg(source).arg("-ldl").status().unwrap().success());
    let mut command = container.program(&program, &[]);
    command.env("LD_LIBRARY_PATH", folder).stdin(Stdio::piped()).stdout(Stdio::piped());
    if !limited {
        command.env_remove("LD_PRELOAD");
    }
    let mut child = command.spawn().unwrap();
    let list = names.iter().cloned().collect::<Vec<_>>().join("\n");
    let mut stdin = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || stdin.write_all(list.as_bytes()).unwrap());
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let (first, rest) = text.split_once('\n').unwrap();
    let lines = rest.lines().map(|line| {
        let words: Vec<_> = line.split(' ').map(str::to_owned).collect();
        words.try_into().unwrap_or_else(|words| panic!("{words:?}"))
    });
    (first.to_owned(), lines.collect())
}

#[test]
fn a_program_is_given_the_limiters_function_wherever_it_would_get_that_one_of_the_driver() {
    for folder in libraries() {
        let (cuda, nvml) = (functions(&folder.join("libcuda.so.1")), functions(&folder.join("libnvidia-ml.so.1")));
        let ours = functions(&Built::get().limiter);
        let names: BTreeSet<String> =
            cuda.iter().chain(&nvml).flat_map(|name| [name.clone(), base(name).to_owned()]).collect();
        let (init, without) = answers(&folder, &names, false);
        let (limited, with) = answers(&folder, &names, true);
        // no GPU: 100; no driver: 9. The limiter does not change that
        assert_eq!((init.as_str(), limited.as_str()), ("init 100 9", "init 100 9"), "{folder:?}");
        assert!(without.len() > 600, "{folder:?}: {}", without.len());
        assert_eq!(without.len(), with.len(), "{folder:?}");
        let mut given = BTreeSet::new();
        for (driver, limiter) in without.iter().zip(&with) {
            assert_eq!(driver[..4], limiter[..4], "{folder:?}");
            let [name, _, _, symbol, file] = limiter;
            let expected = ours.contains(symbol.as_str());
            assert_eq!(expected, file == "libkerf_limiter.so", "{folder:?}: {name} is {symbol} of {file}");
            if expected {
                given.insert(symbol.clone());
            }
        }
        // functions that the limiter has and this driver does not are of later drivers
        let later: Vec<_> =
            ours.difference(&given).filter(|name| cuda.contains(*name) || nvml.contains(*name)).collect();
        assert!(later.is_empty(), "{folder:?}: never given: {later:?}");
        println!("{}: {} names, {} of the limiter", folder.display(), names.len(), given.len());
    }
}

#[test]
fn every_function_of_the_driver_that_allocates_or_launches_is_known() {
    for folder in libraries() {
        let functions = functions(&folder.join("libcuda.so.1"));
        let unknown = unknown(functions.iter().map(String::as_str), Names::Exported);
        assert!(unknown.is_empty(), "{folder:?}: {unknown:?}");
    }
}
