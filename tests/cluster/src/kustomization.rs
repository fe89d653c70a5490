//! An administrator's kustomizations of `manifests/`.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, ensure};
use serde_json::json;

use crate::place::Place;
use crate::tools::workspace;

/// What a kustomization takes of `manifests/`.
#[derive(Clone, Copy, Debug)]
pub struct Kustomization<'a> {
    /// The base, or an overlay of it, such as `overlays/simulated`.
    pub resources: &'a str,
    /// Names of components, in their order.
    pub components: &'a [&'a str],
    /// Images whose tag is another one.
    pub tags: &'a [(&'a str, &'a str)],
    /// How many GPUs the overlay `simulated` has, where not as it ships.
    pub gpus: Option<usize>,
}

/// How many GPUs the overlay `simulated` ships.
pub const SIMULATED_GPUS: usize = 4;

impl Kustomization<'_> {
    /// Writes it, beside a copy of `manifests/`; returns its directory.
    ///
    /// # Errors
    /// Those of the system.
    pub fn write(&self, place: &Place) -> anyhow::Result<PathBuf> {
        // kustomize reads nothing above a kustomization but other kustomizations' directories
        if !place.path("ways/manifests").exists() {
            let root = place.dir("ways")?;
            let copied = Command::new("cp").arg("-r").arg(workspace().join("manifests")).arg(&root).status()?;
            ensure!(copied.success(), "{copied}");
        }
        let components: Vec<String> =
            self.components.iter().map(|name| format!("../manifests/components/{name}")).collect();
        let images: Vec<_> = self.tags.iter().map(|(name, tag)| json!({ "name": name, "newTag": tag })).collect();
        let mut kustomization = json!({
            "apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization",
            "resources": [format!("../manifests/{}", self.resources)], "components": components, "images": images,
        });
        if let Some(count) = self.gpus {
            kustomization["configMapGenerator"] = json!([{
                "name": "kerf-simulated-gpus", "namespace": "kerf-system", "behavior": "replace", "files": ["gpus.toml"],
            }]);
            kustomization["generatorOptions"] = json!({ "disableNameSuffixHash": true });
            let gpus = (0..count)
                .map(|index| format!("[[gpu]]\nindex = {index}\nmodel = \"Simulated 24G\"\nmemory_mib = 24576\n"));
            let text = gpus.collect::<Vec<_>>().join("\n");
            place.write(&format!("ways/way-{}/gpus.toml", self.name()), text)?;
        }
        let file =
            place.write(&format!("ways/way-{}/kustomization.yaml", self.name()), kustomization.to_string())?;
        Ok(file.parent().context("no directory")?.to_owned())
    }

    fn name(&self) -> String {
        [&[self.resources], self.components].concat().join("-").replace('/', "-")
    }
}
