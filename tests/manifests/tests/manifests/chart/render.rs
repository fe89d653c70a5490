//! helm and kustomize, as an administrator runs them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

use crate::reading::root;

/// The version of the cluster that objects are rendered for; that of kube-scheduler's image in the base.
pub const KUBERNETES: &str = "v1.37.2";

/// Both versions of helm that are in use.
pub const HELMS: [&str; 2] = ["helm3", "helm4"];

/// The folder with helm and kustomize; `None`, and says so, where it is not named.
pub fn tools() -> Option<PathBuf> {
    let folder = std::env::var_os("KERF_MANIFEST_TOOLS").map(PathBuf::from);
    if folder.is_none() {
        println!(
            "NOT RUN: KERF_MANIFEST_TOOLS names no folder with helm and kustomize; tests/manifests/setup.sh gets them"
        );
    }
    folder
}

/// A new folder of a test.
pub fn folder(test: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(test);
    if folder.exists() {
        std::fs::remove_dir_all(&folder).unwrap();
    }
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// Every document of a text that is not empty.
fn parsed(text: &str) -> Vec<Value> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    documents.into_iter().filter(|document| !document.is_null()).collect()
}

/// A release of the chart.
pub struct Release<'a> {
    pub tools: &'a Path,
    /// Program, of [`HELMS`].
    pub helm: &'a str,
    /// Where its files are kept.
    pub folder: &'a Path,
    /// The chart's folder, or a package of it.
    pub chart: PathBuf,
    pub name: &'a str,
    pub namespace: &'a str,
    /// Version of the cluster.
    pub kubernetes: &'a str,
}

impl<'a> Release<'a> {
    /// `kerf` in `kerf-system`, as the kustomizations have it.
    pub fn new(tools: &'a Path, helm: &'a str, folder: &'a Path) -> Self {
        let chart = root().join("charts/kerf");
        Self { tools, helm, folder, chart, name: "kerf", namespace: "kerf-system", kubernetes: KUBERNETES }
    }

    /// helm without what the user has configured.
    pub fn helm(&self) -> Command {
        let mut command = Command::new(self.tools.join(self.helm));
        for variable in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
            command.env(variable, self.folder.join(variable));
        }
        command.env("KUBECONFIG", "/dev/null").current_dir(self.folder);
        command
    }

    /// What `helm template` answers to values in YAML.
    pub fn template(&self, values: &str) -> Output {
        let file = self.folder.join("values.yaml");
        std::fs::write(&file, values).unwrap();
        let mut command = self.helm();
        command.args(["template", self.name]).arg(&self.chart).arg("--values").arg(file);
        command.args(["--namespace", self.namespace, "--kube-version", self.kubernetes]);
        command.output().unwrap()
    }

    /// The objects, with the hook of `helm test`.
    pub fn objects(&self, values: &str) -> Vec<Value> {
        let output = self.template(values);
        assert!(output.status.success(), "{}: {values}: {}", self.helm, String::from_utf8_lossy(&output.stderr));
        parsed(std::str::from_utf8(&output.stdout).unwrap())
    }

    /// What it says of values that it refuses.
    pub fn refusal(&self, values: &str) -> String {
        let output = self.template(values);
        assert!(!output.status.success(), "{}: {values} are not refused", self.helm);
        String::from_utf8(output.stderr).unwrap()
    }
}

/// The objects of a kustomization with these resources and components, all below manifests/.
pub fn kustomized(tools: &Path, folder: &Path, resources: &[&str], components: &[&str]) -> Vec<Value> {
    // kustomize takes no absolute paths
    let up = "../".repeat(folder.components().count() - 1);
    let manifests = root().canonicalize().unwrap().join("manifests");
    let path = |name: &&str| format!("{up}{}", manifests.join(name).strip_prefix("/").unwrap().display());
    let kustomization = serde_json::json!({
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": resources.iter().map(path).collect::<Vec<_>>(),
        "components": components.iter().map(path).collect::<Vec<_>>(),
    });
    std::fs::write(folder.join("kustomization.yaml"), kustomization.to_string()).unwrap();
    let output = Command::new(tools.join("kustomize")).arg("build").arg(folder).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{resources:?} {components:?}: {said}");
    parsed(std::str::from_utf8(&output.stdout).unwrap())
}

/// Objects by kind, namespace and name.
pub fn by_name(objects: Vec<Value>) -> BTreeMap<(String, String, String), Value> {
    let mut named = BTreeMap::new();
    for object in objects {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let metadata = &object["metadata"];
        let key = (text(&object["kind"]), text(&metadata["namespace"]), text(&metadata["name"]));
        assert!(named.insert(key.clone(), object).is_none(), "{key:?} twice");
    }
    named
}

/// The objects of a kind, of which there is one with this name.
pub fn object<'a>(objects: &'a [Value], kind: &str, name: &str) -> &'a Value {
    let mut own = objects.iter().filter(|object| object["kind"] == kind && object["metadata"]["name"] == name);
    let found = own.next().unwrap_or_else(|| panic!("no {kind} {name}"));
    assert!(own.next().is_none(), "{kind} {name} twice");
    found
}
