//! Profiles of the first seconds of a run, written to the folder `KERF_PROFILE`. `go tool pprof -top FILE` reads those
//! of the scheduler and the API server, `perf report -i FILE` the extender's, which is made where `perf` is installed.

use std::io::ErrorKind;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::Context;
use http_body_util::BodyExt;
use kerf_cluster::bare::Bare;
use kube::Client;

const SECONDS: u32 = 6;

/// `run` is the prefix of the files' names.
pub async fn take(bare: &Bare, run: &str) -> anyhow::Result<()> {
    let Some(folder) = std::env::var_os("KERF_PROFILE") else { return Ok(()) };
    let folder = Path::new(&folder);
    std::fs::create_dir_all(folder)?;
    let file = |program: &str| folder.join(format!("{run}-{program}"));
    let scheduler = bare.control.scheduler_client(bare.scheduler().1)?;
    let extender = file("kerf-extender.perf");
    let (scheduler, api, ()) = tokio::try_join!(pprof(&scheduler), pprof(&bare.client), perf(bare, &extender))?;
    std::fs::write(file("kube-scheduler.pprof"), scheduler)?;
    std::fs::write(file("kube-apiserver.pprof"), api)?;
    Ok(())
}

async fn pprof(client: &Client) -> anyhow::Result<Vec<u8>> {
    let address = format!("/debug/pprof/profile?seconds={SECONDS}");
    let answer = client.send(http::Request::get(address).body(kube::client::Body::empty())?).await?;
    Ok(answer.into_body().collect().await?.to_bytes().to_vec())
}

async fn perf(bare: &Bare, file: &Path) -> anyhow::Result<()> {
    let Some(extender) = &bare.extender else { return Ok(()) };
    let mut command = Command::new("perf");
    command.args(["record", "--quiet", "--freq=500", "--pid"]).arg(extender.pid()?.to_string());
    command.arg("--output").arg(file).args(["--", "sleep", &SECONDS.to_string()]);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    match tokio::task::spawn_blocking(move || command.status()).await? {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error).context("perf"),
        _ => Ok(()),
    }
}
