//! A control plane with Nodes that are objects only: there is no kubelet, so a bound pod stays as it is. For measuring
//! the cost of binding.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use kube::Client;

use crate::cluster::free_ports;
use crate::control::{self, Control, Ports, Purpose, Scheduling};
use crate::place::Place;
use crate::process::Process;
use crate::programs::{Programs, install};
use crate::tools::Tools;
use crate::wait::until;

/// A control plane, with kerf's extender if wanted.
pub struct Bare {
    /// etcd, API server and scheduler; no controller manager.
    pub control: Control,
    /// kerf's extender; `None` to measure without it.
    pub extender: Option<Process>,
    /// A client with the administrator's rights.
    pub client: Client,
    place: Arc<Place>,
}

impl Bare {
    /// Starts everything: with kerf as in `manifests/` and these flags more, or with a scheduler without an extender.
    ///
    /// # Errors
    /// Where something fails. Everything that was started by then is ended.
    pub async fn up(
        tools: &Tools,
        programs: &Programs,
        scheduling: Scheduling,
        flags: &[&str],
    ) -> anyhow::Result<Self> {
        for place in Place::abandoned()? {
            place.clear(None)?;
        }
        let place = Arc::new(Place::new()?);
        match Self::bring_up(&place, tools, programs, scheduling, flags).await {
            Ok(bare) => Ok(bare),
            Err(error) => {
                place.clear(None).with_context(|| format!("after {error:#}"))?;
                Err(error)
            }
        }
    }

    async fn bring_up(
        place: &Arc<Place>,
        tools: &Tools,
        programs: &Programs,
        scheduling: Scheduling,
        flags: &[&str],
    ) -> anyhow::Result<Self> {
        let ports = Ports::take(&mut free_ports(Ports::COUNT)?)?;
        let control = Control::start(place, tools, ports, &[], Purpose::Measurement(scheduling)).await?;
        let client = control::client(&control.admin()).await?;
        let mut bare = Self { control, extender: None, client, place: place.clone() };
        if scheduling != Scheduling::Plain {
            install(&bare.control)?;
            let extender = bare.extender.insert(programs.start_extender(place, &bare.control, "info", flags)?);
            until(Duration::from_secs(30), "the extender is ready", async || {
                extender.check()?;
                let answer = reqwest::get(format!("http://127.0.0.1:{}/readyz", ports.extender_metrics)).await?;
                ensure!(answer.status().is_success(), "{}", answer.text().await?);
                Ok(())
            })
            .await?;
        }
        Ok(bare)
    }

    /// The API server's metrics, in Prometheus' text format.
    ///
    /// # Errors
    /// Where it does not answer.
    pub async fn api_metrics(&self) -> anyhow::Result<String> {
        control::metrics(&self.client).await
    }

    /// The extender's metrics; empty where there is none.
    ///
    /// # Errors
    /// Where it does not answer.
    pub async fn extender_metrics(&self) -> anyhow::Result<String> {
        if self.extender.is_none() {
            return Ok(String::new());
        }
        Ok(reqwest::get(format!("http://127.0.0.1:{}/metrics", self.control.ports.extender_metrics))
            .await?
            .text()
            .await?)
    }

    /// Ends everything and removes it.
    ///
    /// # Errors
    /// Names what could not be removed.
    pub fn down(self) -> anyhow::Result<()> {
        self.place.clear(None)
    }
}
