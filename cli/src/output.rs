//! Documents for programs.

use anyhow::Context;
use serde_json::Value;

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Document {
    Json,
    Yaml,
}

/// The text of a document, with an end of line.
pub fn document(value: &Value, form: Document) -> anyhow::Result<String> {
    match form {
        Document::Json => Ok(serde_json::to_string_pretty(value)? + "\n"),
        Document::Yaml => serde_saphyr::to_string(value).context("YAML"),
    }
}
