//! A control plane with Nodes that are objects only: there is no kubelet, so a bound pod stays as it is. For measuring
//! the cost of binding.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use kube::Client;

use crate::control::{self, Control, Ports, Purpose, Scheduling};
use crate::own_scheduler;
use crate::place::Place;
use crate::ports::free_ports;
use crate::process::Process;
use crate::programs::{BESIDE_CONTROL_PLANE, Programs, install};
use crate::tools::Tools;
use crate::wait::until;

/// A control plane, with kerf's extender if wanted.
pub struct Bare {
    /// etcd, API server and scheduler; no controller manager.
    pub control: Control,
    /// kerf's own kube-scheduler; `None` where the cluster's own places all pods.
    pub own_scheduler: Option<Process>,
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
        let mut bare = Self { control, own_scheduler: None, extender: None, client, place: place.clone() };
        let own = scheduling == Scheduling::Own;
        if scheduling.is_with_kerf() {
            install(&bare.control)?;
            let (account, beside) = if own {
                (own_scheduler::ACCOUNT, own_scheduler::install(&bare.control)?)
            } else {
                (BESIDE_CONTROL_PLANE, Vec::new())
            };
            let flags: Vec<&str> = beside.iter().map(String::as_str).chain(flags.iter().copied()).collect();
            let extender =
                bare.extender.insert(programs.start_extender(place, &bare.control, account, "info", &flags)?);
            until(Duration::from_secs(30), "the extender is ready", async || {
                extender.check()?;
                let answer = reqwest::get(format!("http://127.0.0.1:{}/readyz", ports.extender_metrics)).await?;
                ensure!(answer.status().is_success(), "{}", answer.text().await?);
                Ok(())
            })
            .await?;
        }
        if own {
            let scheduler = bare.own_scheduler.insert(own_scheduler::start(place, tools, &bare.control)?);
            until(Duration::from_secs(30), "kerf's scheduler leads", async || {
                scheduler.check()?;
                let ready = reqwest::get(format!("http://127.0.0.1:{}/readyz", ports.extender_metrics)).await?;
                let ready = ready.text().await?;
                ensure!(ready.contains("active: "), "{ready}");
                Ok(())
            })
            .await?;
        }
        Ok(bare)
    }

    /// The kube-scheduler that places the pods, and its port.
    pub fn scheduler(&self) -> (&Process, u16) {
        let ports = self.control.ports;
        self.own_scheduler
            .as_ref()
            .map_or((&self.control.scheduler, ports.scheduler), |own| (own, ports.own_scheduler))
    }

    /// Its metrics, in Prometheus' text format.
    ///
    /// # Errors
    /// Where it does not answer.
    pub async fn scheduler_metrics(&self) -> anyhow::Result<String> {
        self.control.scheduler_metrics(self.scheduler().1).await
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
