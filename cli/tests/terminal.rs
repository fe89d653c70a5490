//! The real `kerf` program on a terminal.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};

use kerf_testkit::api::ApiServer;
use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use serde_json::json;

/// A terminal of 24 lines; what is written to it, and the end that programs write to.
fn terminal(columns: u16) -> (File, OwnedFd) {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap();
    let slave = rustix::fs::open(name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap();
    tcsetwinsize(&slave, Winsize { ws_row: 24, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
    (File::from(master), slave)
}

async fn cluster(folder: &std::path::Path) -> ApiServer {
    let api = ApiServer::start().await.unwrap();
    api.write_kubeconfig(folder.join("config")).unwrap();
    let gpus = json!([{ "uuid": "GPU-0", "index": 0, "model": "A model with a very long name of its own", "memory_mib": 15360, "health": "healthy" }]);
    let inventory = json!({ "version": 1, "gpus": gpus }).to_string();
    let name = "a-node-with-a-very-long-name.in-a-domain.example.com";
    api.create(
        "nodes",
        json!({ "metadata": { "name": name, "annotations": { "inspur.com/gpu-inventory": inventory } } }),
    )
    .unwrap();
    let limits = json!({ "inspur.com/vcuda-core": "50", "inspur.com/vcuda-memory": "30" });
    api.create("pods", json!({ "metadata": { "name": "serves", "namespace": "team", "annotations": { "inspur.com/predicate-gpu-idx-0": "0" } },
        "spec": { "nodeName": name, "containers": [{ "name": "main", "resources": { "limits": limits } }] }, "status": { "phase": "Running" } })).unwrap();
    api
}

fn start(folder: &std::path::Path, args: &[&str], slave: OwnedFd, no_color: bool) -> Child {
    let mut kerf = Command::new(env!("CARGO_BIN_EXE_kerf"));
    kerf.env("KUBECONFIG", folder.join("config")).env("TERM", "xterm").env_remove("NO_COLOR").args(args);
    if no_color {
        kerf.env("NO_COLOR", "1");
    }
    kerf.stdin(Stdio::null()).stdout(slave).spawn().unwrap()
}

/// What is written until this text has come so many times.
fn until(master: &mut File, text: &str, times: usize) -> String {
    let (mut all, mut part) = (Vec::new(), [0; 4096]);
    loop {
        let read = master.read(&mut part).unwrap();
        all.extend_from_slice(&part[..read]);
        let so_far = String::from_utf8_lossy(&all).into_owned();
        if so_far.matches(text).count() >= times {
            return so_far;
        }
    }
}

/// Until the program has ended: a terminal then says that its other end is gone.
fn rest(master: &mut File) -> String {
    let (mut all, mut part) = (Vec::new(), [0; 4096]);
    while let Ok(read @ 1..) = master.read(&mut part) {
        all.extend_from_slice(&part[..read]);
    }
    String::from_utf8_lossy(&all).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn top_draws_in_place_and_leaves_the_terminal_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let api = cluster(folder.path()).await;
    for no_color in [false, true] {
        let (mut master, slave) = terminal(100);
        let mut child = start(folder.path(), &["top", "--interval", "1s"], slave, no_color);
        let lists = || api.requests().get(&("list".to_owned(), "pods".to_owned())).copied().unwrap_or_default();
        let before = lists();
        // each picture begins in the corner
        let drawn = until(&mut master, "\u{1b}[H", 3);
        assert!(drawn.starts_with("\u{1b}[?1049h\u{1b}[?25l\u{1b}[H"), "{drawn:?}");
        assert!(drawn.contains("▒") && drawn.contains("?/50%") && drawn.contains("team/serves"), "{drawn}");
        assert_eq!(drawn.contains("\u{1b}[36m"), !no_color, "{drawn:?}");
        assert!(lists() > before + 1, "the cluster is read again");
        kill_process(Pid::from_child(&child), Signal::INT).unwrap();
        assert!(child.wait().unwrap().success());
        assert!(rest(&mut master).ends_with("\u{1b}[?25h\u{1b}[?1049l"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_fit_the_terminal() {
    let folder = tempfile::tempdir().unwrap();
    let _api = cluster(folder.path()).await;
    for (args, columns) in [
        (&["get", "gpus"][..], 120_u16),
        (&["get", "nodes"], 100),
        (&["get", "pods", "-A"], 120),
        (&["explain", "pod", "team/serves"], 60),
        (&["top", "--once"], 100),
    ] {
        let (mut master, slave) = terminal(columns);
        let mut child = start(folder.path(), args, slave, true);
        let text = rest(&mut master);
        assert!(child.wait().unwrap().success(), "{args:?}: {text}");
        assert!(text.contains("serves") || args[1] == "nodes", "{args:?}: {text}");
        let fits = |line: &str| line.trim_end().chars().count() <= columns.into();
        assert!(text.lines().all(fits), "{args:?} in {columns}: {text}");
    }
}
