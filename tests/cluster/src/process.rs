//! A program of the cluster: started, recorded, paused, killed, restarted.

use std::fs::OpenOptions;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, ensure};
use rustix::process::Signal;

use crate::identity::Identity;
use crate::place::Place;
use crate::wait::{Never, until};

/// How to start a program.
#[derive(Clone, Debug, Default)]
pub struct Spec {
    /// Distinct within the cluster; also the name of its log.
    pub name: String,
    /// Path of the executable.
    pub program: PathBuf,
    /// Its command-line arguments.
    pub args: Vec<String>,
    /// Variables added to this process' environment.
    pub env: Vec<(String, String)>,
    /// Pid of a process in whose mount namespace it runs.
    pub inside: Option<u32>,
}

impl Spec {
    /// A program with arguments only.
    pub fn new(name: impl Into<String>, program: impl Into<PathBuf>, args: &[String]) -> Self {
        Self { name: name.into(), program: program.into(), args: args.to_vec(), ..Self::default() }
    }

    /// The command that starts it.
    pub fn command(&self) -> Command {
        let mut command = match self.inside {
            Some(holder) => {
                // replaces itself by the program, so the pid stays the same
                let mut command = Command::new("nsenter");
                command.arg(format!("--mount=/proc/{holder}/ns/mnt")).arg("--").arg(&self.program);
                command
            }
            None => Command::new(&self.program),
        };
        command.args(&self.args).envs(self.env.iter().map(|(key, value)| (key, value)));
        command
    }
}

/// A started program of the cluster.
#[derive(Debug)]
pub struct Process {
    spec: Spec,
    place: Arc<Place>,
    child: Mutex<Option<Child>>,
}

impl Process {
    /// Starts a program and records it.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub fn start(place: &Arc<Place>, spec: Spec) -> anyhow::Result<Self> {
        let process = Self { spec, place: place.clone(), child: Mutex::default() };
        process.start_again()?;
        Ok(process)
    }

    /// Starts it again after it was killed.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub fn start_again(&self) -> anyhow::Result<()> {
        self.start_with(&[])
    }

    /// Starts it again after it was killed, with these arguments beside its own.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub fn start_with(&self, more: &[&str]) -> anyhow::Result<()> {
        let name = &self.spec.name;
        let path = self.place.dir("logs")?.join(format!("{name}.log"));
        let log = OpenOptions::new().create(true).append(true).open(&path)?;
        let mut command = self.spec.command();
        command.args(more);
        // a Ctrl-C at the terminal is for the main process alone
        command.process_group(0).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().with_context(|| format!("{name}: {:?}", self.spec.program))?;
        self.place.record(name, child.id())?;
        *self.lock() = Some(child);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Option<Child>> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its pid.
    ///
    /// # Errors
    /// Where it does not run.
    pub fn pid(&self) -> anyhow::Result<u32> {
        self.check()?;
        self.lock().as_ref().map(Child::id).context("not started")
    }

    /// Checks that it runs.
    ///
    /// # Errors
    /// With the end of its log, where it has ended.
    pub fn check(&self) -> anyhow::Result<()> {
        let name = &self.spec.name;
        let status = self.lock().as_mut().with_context(|| format!("{name} does not run"))?.try_wait()?;
        match status {
            None => Ok(()),
            Some(status) => Err(Never(format!("{name} ended, {status}:\n{}", self.log_tail())).into()),
        }
    }

    /// Its whole log.
    pub fn log(&self) -> String {
        let path = self.place.path("logs").join(format!("{}.log", self.spec.name));
        std::fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// Where it does not run.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let identity = Identity::of(self.pid()?).context("gone")?;
        identity.signal(signal);
        Ok(())
    }

    /// Ends it with SIGKILL and waits for its end.
    ///
    /// # Errors
    /// Where it did not run.
    pub fn kill(&self) -> anyhow::Result<()> {
        self.check()?;
        if let Some(mut child) = self.lock().take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Ends it with SIGTERM and waits for its end.
    ///
    /// # Errors
    /// Where it takes too long.
    pub async fn terminate(&self) -> anyhow::Result<()> {
        self.signal(Signal::TERM)?;
        let name = &self.spec.name;
        until(Duration::from_secs(30), &format!("{name} ends"), async || {
            let ended = self.lock().as_mut().map(Child::try_wait).transpose()?.flatten().is_some();
            ensure!(ended, "it runs");
            Ok(())
        })
        .await?;
        *self.lock() = None;
        Ok(())
    }
}
