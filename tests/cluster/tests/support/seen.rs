//! What a container was given, as `kerf-probe` prints it.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, ensure};
use kerf_cluster::paper::{MAJOR, MODE, Paper};

/// The surroundings of a container at its start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    pub env: BTreeMap<String, String>,
    /// Type, numbers, mode of each device file, and the result of opening it for reading and writing.
    pub devices: BTreeMap<String, String>,
    /// Mount points, and whether each is read-only.
    pub mounts: BTreeMap<String, bool>,
    /// The output after that.
    pub rest: String,
}

impl Seen {
    /// Reads the probe's output.
    pub fn of(text: &str) -> anyhow::Result<Self> {
        let (found, rest) = text.split_once("\ndone").with_context(|| format!("the probe did not end:\n{text}"))?;
        let mut seen = Self { rest: rest.trim().to_owned(), ..Self::default() };
        for line in found.lines() {
            let (kind, line) = line.split_once(' ').unwrap_or_default();
            match kind {
                "env" => {
                    let (key, value) = line.split_once('=').unwrap_or((line, ""));
                    seen.env.insert(key.to_owned(), value.to_owned());
                }
                "device" => {
                    let (path, told) = line.split_once(' ').context("no numbers")?;
                    seen.devices.insert(path.to_owned(), told.to_owned());
                }
                "mount" => {
                    let (path, told) = line.split_once(' ').context("no type")?;
                    let only = told.split([' ', ',']).any(|option| option == "ro");
                    seen.mounts.insert(path.to_owned(), only);
                }
                // the next line of a value of several lines
                _ => {}
            }
        }
        Ok(seen)
    }

    /// What it has beyond `plain`, a container without requests.
    pub fn beyond(&self, plain: &Self) -> Self {
        fn more<T: Clone>(own: &BTreeMap<String, T>, plain: &BTreeMap<String, T>) -> BTreeMap<String, T> {
            let more = own.iter().filter(|(key, _)| !plain.contains_key(*key));
            more.map(|(key, value)| (key.clone(), value.clone())).collect()
        }
        Self {
            env: more(&self.env, &plain.env),
            devices: more(&self.devices, &plain.devices),
            mounts: more(&self.mounts, &plain.mounts),
            rest: self.rest.clone(),
        }
    }

    /// Fails unless these are the device files, each the one of `paper`, and the container may open it.
    pub fn has_devices(&self, paper: &Paper, names: &[&str]) -> anyhow::Result<&Self> {
        let mut wanted = BTreeMap::new();
        for name in names {
            // a link by path leads to its device file
            let target = match name.strip_prefix("dri/by-path/") {
                Some(link) => paper.leads_to(link)?,
                None => (*name).to_owned(),
            };
            let told =
                format!("character {MAJOR:x}:{:x} {MODE:o} No such device or address", paper.minor(&target)?);
            wanted.insert(format!("/dev/{name}"), told);
        }
        ensure!(self.devices == wanted, "device files: {:#?}\nwanted: {wanted:#?}", self.devices);
        Ok(self)
    }

    /// Fails unless these are the mounts, all of them read-only.
    pub fn has_mounts(&self, paths: &[&str]) -> anyhow::Result<&Self> {
        let wanted: BTreeMap<String, bool> = paths.iter().map(|path| ((*path).to_owned(), true)).collect();
        ensure!(self.mounts == wanted, "mounts: {:?}, wanted: {wanted:?}", self.mounts);
        Ok(self)
    }

    /// Fails unless this is the environment.
    pub fn has_env(&self, pairs: &[(&str, &str)]) -> anyhow::Result<&Self> {
        let wanted: BTreeMap<&str, &str> = pairs.iter().copied().collect();
        let own: BTreeMap<&str, &str> = self.env.iter().map(|(key, value)| (&**key, &**value)).collect();
        ensure!(own == wanted, "environment: {own:?}, wanted: {wanted:?}");
        Ok(self)
    }

    /// Its NVIDIA GPUs: numbers of `/dev/nvidia<N>`.
    pub fn nvidia(&self) -> BTreeSet<u32> {
        let numbers = self.devices.keys().filter_map(|path| path.strip_prefix("/dev/nvidia")?.parse().ok());
        numbers.collect()
    }
}
