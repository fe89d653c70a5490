//! A driver whose calls do not return.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::oneshot;

use crate::stage::{SOON, Stage};

/// A management library that waits in its first call until the writer of a pipe has closed it.
struct Driver {
    library: PathBuf,
    pipe: PathBuf,
}

impl Driver {
    fn new(directory: &Path) -> Self {
        let at = |name: &str| directory.join(name);
        let (library, pipe, source) = (at("libnvidia-ml.so.1"), at("pipe"), at("hanging.c"));
        let text = r#"
            #include <fcntl.h>
            #include <unistd.h>
            int nvmlInit_v2(void) { char c; read(open(PIPE, O_RDONLY), &c, 1); return 999; }
            int nvmlDeviceGetHandleByUUID(const char *uuid, void **device) { return 999; }
        "#;
        std::fs::write(&source, text).unwrap();
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let pipe_of = format!("-DPIPE=\"{}\"", pipe.display());
        let mut compiler = Command::new("cc");
        compiler.args(["-w", "-shared", "-fPIC", &pipe_of, "-o"]).arg(&library).arg(source);
        assert!(compiler.status().unwrap().success());
        Self { library, pipe }
    }

    /// Returns once the plugin is in the call.
    async fn called(&self) -> Held {
        let (pipe, (in_call, called)) = (self.pipe.clone(), oneshot::channel());
        let (release, released) = mpsc::channel();
        // a thread of its own: where the plugin's call stops all tasks, this test's as well, it ends the call
        let thread = thread::spawn(move || {
            let _writer = File::options().write(true).open(pipe).unwrap();
            let _ = in_call.send(());
            released.recv_timeout(SOON).is_ok()
        });
        if tokio::time::timeout(SOON, called).await.is_err() {
            // nobody called: what waits to write would wait for ever
            let _ = File::open(&self.pipe);
            panic!("the driver was not called");
        }
        Held { release, thread }
    }

    fn flag(&self) -> String {
        format!("--nvml-library={}", self.library.display())
    }
}

/// A call that goes on until it is told to end, or for so long that something else must have waited for it.
struct Held {
    release: mpsc::Sender<()>,
    thread: JoinHandle<bool>,
}

impl Held {
    /// Returns whether the call went on until now.
    fn ends(self) -> bool {
        let _ = self.release.send(());
        self.thread.join().unwrap()
    }
}

#[tokio::test]
async fn a_plugin_whose_driver_hangs_is_not_ready_and_ends_when_it_is_told_to() {
    let mut stage = Stage::new().await;
    let directory = tempfile::tempdir().unwrap();
    let driver = Driver::new(directory.path());
    stage.flags = vec![driver.flag()];
    stage.start_plugin().await;
    let held = driver.called().await;
    let (status, text) = stage.get("/readyz").await;
    assert_eq!(status, 503, "{text}");
    for name in ["gpus", "kubelet-core", "kubelet-memory"] {
        assert!(text.contains(name), "{name}: {text}");
    }
    tokio::time::timeout(SOON, stage.stop_plugin()).await.unwrap();
    assert!(held.ends(), "nothing else waits for the driver");
}

/// The plugin as a program.
pub struct Program(pub Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The program does not wait for the thread that is in the call.
#[tokio::test]
async fn the_program_ends_although_its_driver_hangs() {
    let stage = Stage::new().await;
    let directory = tempfile::tempdir().unwrap();
    let driver = Driver::new(directory.path());
    let arguments = stage.arguments().into_iter().skip(1).chain([driver.flag()]);
    let program = Command::new(env!("CARGO_BIN_EXE_kerf-plugin")).args(arguments).stderr(Stdio::null()).spawn();
    let mut program = Program(program.unwrap());
    let held = driver.called().await;
    let pid = Pid::from_child(&program.0);
    kill_process(pid, Signal::TERM).unwrap();
    let ended = tokio::task::spawn_blocking(move || program.0.wait());
    let ended = tokio::time::timeout(SOON, ended).await;
    // else the test would wait for the program as well
    assert!(held.ends(), "the program does not wait for the driver");
    assert!(ended.unwrap().unwrap().unwrap().success());
}
