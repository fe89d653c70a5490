//! Input files.

use std::io::Read;
use std::path::Path;

use anyhow::{Context, ensure};

use super::objects::{self, Item};

/// In bytes, more than any cluster's snapshot: a bound on what is read into memory.
const MAX_BYTES: u64 = 2 << 30;

/// The text of a file, or of standard input for `-`.
pub fn text(path: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    let name = path.display();
    let read = if path.as_os_str() == "-" {
        std::io::stdin().lock().take(MAX_BYTES).read_to_string(&mut text).context("standard input")
    } else {
        let file = std::fs::File::open(path).with_context(|| name.to_string())?;
        file.take(MAX_BYTES).read_to_string(&mut text).with_context(|| name.to_string())
    };
    ensure!((read? as u64) < MAX_BYTES, "{name}: larger than {} GiB", MAX_BYTES >> 30);
    Ok(text)
}

/// Calls `visit` with each node, pod and lease, and with a text for its position.
pub fn each(path: &Path, visit: &mut dyn FnMut(Item, &str) -> anyhow::Result<()>) -> anyhow::Result<()> {
    objects::each(&text(path)?, &path.display().to_string(), visit)
}
