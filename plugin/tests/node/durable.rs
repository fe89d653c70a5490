//! What a loss of power leaves: file systems may write a file's name before its content.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::hanging::Program;
use crate::stage::Stage;

/// Notes which files a program has written to the disk, and which names it has given.
const NOTES: &str = r#"
    #define _GNU_SOURCE
    #include <dlfcn.h>
    #include <fcntl.h>
    #include <stdio.h>
    #include <unistd.h>
    static void note(const char *what, const char *from, const char *to) {
        char line[9000];
        int length = snprintf(line, sizeof line, "%s %s %s\n", what, from, to);
        int journal = open(JOURNAL, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
        write(journal, line, length);
        close(journal);
    }
    int fsync(int file) {
        char link[64], name[4096];
        snprintf(link, sizeof link, "/proc/self/fd/%d", file);
        ssize_t length = readlink(link, name, sizeof name - 1);
        name[length > 0 ? length : 0] = 0;
        int result = ((int (*)(int))dlsym(RTLD_NEXT, "fsync"))(file);
        note("written", name, "-");
        return result;
    }
    int rename(const char *from, const char *to) {
        note("named", from, to);
        return ((int (*)(const char *, const char *))dlsym(RTLD_NEXT, "rename"))(from, to);
    }
"#;

/// A library for `LD_PRELOAD`, which takes its notes in `journal`.
fn notes(directory: &Path, journal: &Path) -> PathBuf {
    let (library, source) = (directory.join("notes.so"), directory.join("notes.c"));
    std::fs::write(&source, NOTES).unwrap();
    let journal = format!("-DJOURNAL=\"{}\"", journal.display());
    let mut compiler = Command::new("cc");
    compiler.args(["-w", "-shared", "-fPIC", &journal, "-o"]).arg(&library).arg(source);
    assert!(compiler.status().unwrap().success());
    library
}

/// The loader passes over a library that was cut, and over an empty list of libraries: containers would run without limits.
#[tokio::test]
async fn what_containers_load_is_on_the_disk_before_it_has_its_name() {
    let stage = Stage::new().await;
    std::fs::write(&stage.library, "a library").unwrap();
    let directory = tempfile::tempdir().unwrap();
    let journal = directory.path().join("journal");
    let mut program = Command::new(env!("CARGO_BIN_EXE_kerf-plugin"));
    program.args(stage.arguments().into_iter().skip(1)).stderr(Stdio::null());
    let _program = Program(program.env("LD_PRELOAD", notes(directory.path(), &journal)).spawn().unwrap());
    stage.registered().await;
    stage.place("p", 1, &[("main", 30, 10, "GPU-a")]);
    stage.confirmed("p").await;
    let journal = std::fs::read_to_string(journal).unwrap();
    let lines: Vec<Vec<&str>> = journal.lines().map(|line| line.split(' ').collect()).collect();
    let loaded = |name: &str| name.ends_with("/ld.so.preload") || name.contains("/libkerf_limiter-");
    let named = lines.iter().enumerate().filter(|(_, line)| line[0] == "named" && loaded(line[2]));
    let named: Vec<_> = named.collect();
    assert_eq!(named.len(), 3, "the library, the list of earlier versions, and the container's: {journal}");
    for (at, line) in named {
        assert!(lines[..at].contains(&vec!["written", line[1], "-"]), "{}:\n{journal}", line[2]);
    }
}
