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
}

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
        let kustomization = json!({
            "apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization",
            "resources": [format!("../manifests/{}", self.resources)], "components": components, "images": images,
        });
        let name = [&[self.resources], self.components].concat().join("-").replace('/', "-");
        let file = place.write(&format!("ways/way-{name}/kustomization.yaml"), kustomization.to_string())?;
        Ok(file.parent().context("no directory")?.to_owned())
    }
}
