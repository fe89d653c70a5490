//! The identity of a process: a pid alone may belong to another process later.

use std::fmt;
use std::fs;
use std::str::FromStr;

use kerf_limiter_contract::process::Stat;
use rustix::process::{Pid, Signal, kill_process};

/// A process by its pid and start time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its pid.
    pub pid: u32,
    /// Its start, in ticks since boot.
    start: u64,
}

/// The text is not an identity.
#[derive(Debug)]
pub struct NoIdentity;

impl Identity {
    /// Of a process that lives, or that has ended and was not waited for.
    pub fn of(pid: u32) -> Option<Self> {
        Stat::of(format!("/proc/{pid}")).map(|Stat { start, .. }| Self { pid, start })
    }

    /// Whether any thread of this process still runs. The first may have ended while others hold the files and ports.
    pub fn alive(self) -> bool {
        let stat = Stat::of(format!("/proc/{}", self.pid));
        let threads = || fs::read_dir(format!("/proc/{}/task", self.pid)).map_or(0, Iterator::count);
        stat.is_some_and(|stat| stat.start == self.start && (stat.state != 'Z' || threads() > 1))
    }

    /// Sends a signal, if the pid still belongs to this process.
    pub fn signal(self, signal: Signal) {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid.filter(|_| self.alive()) {
            // it may end between the check and the signal
            let _ = kill_process(pid, signal);
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.pid, self.start)
    }
}

impl FromStr for Identity {
    type Err = NoIdentity;

    fn from_str(text: &str) -> Result<Self, NoIdentity> {
        let (pid, start) = text.trim().split_once(' ').ok_or(NoIdentity)?;
        Ok(Self { pid: pid.parse().map_err(|_| NoIdentity)?, start: start.parse().map_err(|_| NoIdentity)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_again_and_another_one_is_not() {
        let me = Identity::of(std::process::id()).unwrap();
        assert_eq!(me.to_string().parse::<Identity>().unwrap(), me);
        assert!(me.alive());
        // the same pid with another start time is another process
        assert!(!Identity { start: me.start + 1, ..me }.alive());
        assert!("4711".parse::<Identity>().is_err());
    }

    #[test]
    fn a_process_lives_until_its_last_thread_has_ended() {
        // the first thread ends, and another goes on until its standard input ends
        let code = "import ctypes, os, threading
threading.Thread(target=lambda: (os.read(0, 1), os._exit(0))).start()
ctypes.CDLL(None).pthread_exit(None)";
        let started =
            std::process::Command::new("python3").args(["-c", code]).stdin(std::process::Stdio::piped()).spawn();
        let Ok(mut child) = started else {
            println!("!!! NOT RUN: there is no python3");
            return;
        };
        let identity = Identity::of(child.id()).unwrap();
        while Stat::of(format!("/proc/{}", child.id())).unwrap().state != 'Z' {
            std::thread::yield_now();
        }
        assert!(identity.alive());
        drop(child.stdin.take());
        child.wait().unwrap();
        assert!(!identity.alive());
    }

    #[test]
    fn a_process_that_ended_and_was_not_waited_for_is_dead() {
        let mut child = std::process::Command::new("sleep").arg("100").spawn().unwrap();
        let identity = Identity::of(child.id()).unwrap();
        assert!(identity.alive());
        identity.signal(Signal::KILL);
        while identity.alive() {
            std::thread::yield_now();
        }
        child.wait().unwrap();
        assert_eq!(Identity::of(child.id()), None);
    }
}
