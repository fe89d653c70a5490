//! A process that only holds a mount namespace, in which others then run. The mounts vanish with it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;

use crate::cleaning::HOLDER;
use crate::place::Place;
use crate::process::{Process, Spec};
use crate::wait::until;

/// A held mount namespace.
#[derive(Debug)]
pub struct Holder {
    process: Process,
    ready: PathBuf,
}

impl Holder {
    /// Starts it with these mounts, as source and target; `lines` of shell run in it before it is ready.
    ///
    /// # Errors
    /// Where a mount point cannot be made.
    pub fn start(
        place: &Arc<Place>,
        name: &str,
        mounts: &[(String, String)],
        lines: &[String],
    ) -> anyhow::Result<Self> {
        let ready = place.path(&format!("{HOLDER}-{name}.ready"));
        let mut script = vec!["set -e".to_owned()];
        for (from, to) in mounts {
            place.mount_point(to)?;
            script.push(format!("mount --bind '{from}' '{to}'"));
        }
        script.extend_from_slice(lines);
        // kubelet must see the containers' mounts, and vice versa
        script.push("mount --make-rshared /".to_owned());
        script.push(format!("echo > '{}'", ready.display()));
        script.push("exec sleep infinity".to_owned());
        let args = ["--mount", "--propagation", "private", "--", "sh", "-c", &script.join("\n")];
        let args = args.map(str::to_owned);
        let process = Process::start(place, Spec::new(format!("{HOLDER}-{name}"), "unshare", &args))?;
        Ok(Self { process, ready })
    }

    /// Waits until the mounts are there.
    ///
    /// # Errors
    /// Where they cannot be made.
    pub async fn ready(&self) -> anyhow::Result<()> {
        until(Duration::from_secs(10), "a mount namespace is ready", async || {
            self.process.check()?;
            ensure!(self.ready.exists(), "not ready");
            Ok(())
        })
        .await
    }

    /// Its pid, for entering the namespace.
    ///
    /// # Errors
    /// Where it has ended.
    pub fn pid(&self) -> anyhow::Result<u32> {
        self.process.pid()
    }
}
