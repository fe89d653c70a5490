//! Types of objects that other systems bring into a cluster.

use super::stage::Stage;

/// The types of Prometheus' operator and of OpenShift of which kerf has objects, until this is dropped. They know the fields that
/// kerf uses and no others.
pub struct Types<'a> {
    stage: &'a Stage<'a>,
    file: String,
}

impl<'a> Types<'a> {
    pub fn new(stage: &'a Stage<'a>) -> anyhow::Result<Self> {
        let control = &stage.cluster.control;
        let text = include_str!("types.yaml");
        let file = stage.cluster.place().write("types.yaml", text)?.display().to_string();
        let types = Self { stage, file };
        control.kubectl(&["apply", "-f", &types.file])?;
        control.kubectl(&["wait", "--for=condition=Established", "--timeout=60s", "-f", &types.file])?;
        Ok(types)
    }
}

impl Drop for Types<'_> {
    fn drop(&mut self) {
        let delete = ["delete", "--ignore-not-found", "--wait", "-f", &self.file];
        drop(self.stage.cluster.control.kubectl(&delete));
    }
}
