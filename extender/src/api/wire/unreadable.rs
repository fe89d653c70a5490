//! Why a body cannot be read, in texts of bounded length: they go back to the caller, and into logs.

use super::bounded::MAX_VICTIMS;

#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    #[error("request cannot be read: {0}")]
    Json(String),
    #[error("request cannot be read: its pod is larger than any pod")]
    LargePod,
    #[error("request cannot be read: more than {MAX_VICTIMS} victims")]
    TooManyVictims,
    #[error("a node of the request has no name")]
    NamelessNode,
    /// `shown` is the beginning of the field's text.
    #[error("{field} is not {wanted}: {shown}")]
    Name { field: String, wanted: String, shown: String },
}

impl Unreadable {
    /// Without serde's own message, which may quote the whole request.
    pub fn json(error: &serde_json::Error) -> Self {
        const SHOWN: usize = 200;
        let mut text = error.to_string();
        if let Some((end, _)) = text.char_indices().nth(SHOWN) {
            text.truncate(end);
            text.push_str("...");
        }
        Self::Json(text)
    }
}
