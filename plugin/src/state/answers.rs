//! The answer for each set of ids of core, on disk: written before kubelet has the answer, read by the next run of
//! the plugin. See [`AnsweredIds`].

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kerf::plan::DeviceRef;
use kerf::units::{Mib, Milli, Share};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::allocation::{AnsweredIds, Key};
use crate::base::files;
use crate::device::ids::Ids;
use crate::state::State;

const VERSION: u32 = 1;
/// Longer than a file with all shares of a node's GPUs.
const MAX_BYTES: u64 = 8 << 20;

/// Clones write in turn.
#[derive(Clone, Debug)]
pub struct Answers {
    path: PathBuf,
    turn: Arc<Mutex<()>>,
}

#[derive(Serialize, Deserialize)]
struct Wire {
    version: u32,
    answers: Vec<Answer>,
}

#[derive(Serialize, Deserialize)]
struct Answer {
    pod: String,
    container: String,
    core: Vec<String>,
    cards: Vec<Card>,
}

#[derive(Serialize, Deserialize)]
struct Card {
    gpu: String,
    index: u32,
    /// In thousandths.
    compute: u32,
    memory_mib: u64,
}

impl Answers {
    /// The file is in the directory `state`.
    pub fn new(state: &Path) -> Self {
        Self { path: state.join("answers.json"), turn: Arc::default() }
    }

    /// The answers of previous runs of the plugin; none without a file. A file that cannot be read is logged, and
    /// the records are trusted instead.
    pub fn read(&self) -> Vec<AnsweredIds> {
        match self.parse() {
            Ok(answers) => answers,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => {
                tracing::warn!(path = %self.path.display(), %error, "saved allocations cannot be read");
                Vec::new()
            }
        }
    }

    fn parse(&self) -> io::Result<Vec<AnsweredIds>> {
        let wire: Wire = serde_json::from_str(&files::read_some(&self.path, MAX_BYTES)?)?;
        if wire.version != VERSION {
            return Err(io::Error::other(format!("version {} is unknown", wire.version)));
        }
        let card = |card: Card| {
            let share = Share { compute: Milli(card.compute), memory: Mib(card.memory_mib) };
            (DeviceRef { id: card.gpu.into(), index: card.index }, share)
        };
        let given = |answer: Answer| AnsweredIds {
            key: Key { pod: answer.pod.as_str().into(), container: answer.container.as_str().into() },
            ids: Ids::new(answer.core),
            cards: answer.cards.into_iter().map(card).collect(),
        };
        Ok(wire.answers.into_iter().map(given).collect())
    }

    /// Writes the present answers of `state`.
    ///
    /// # Errors
    /// The system's; the last answer must not be given then.
    pub fn write(&self, state: &State) -> io::Result<()> {
        let _turn = self.turn.lock();
        let card = |(device, share): &(DeviceRef, Share)| Card {
            gpu: device.id.to_string(),
            index: device.index,
            compute: share.compute.0,
            memory_mib: share.memory.0,
        };
        let answer = |given: &AnsweredIds| Answer {
            pod: given.key.pod.to_string(),
            container: given.key.container.to_string(),
            core: given.ids.iter().map(str::to_owned).collect(),
            cards: given.cards.iter().map(card).collect(),
        };
        let answers = state.allocations(|allocations| allocations.answers.all().iter().map(answer).collect());
        let text = serde_json::to_vec(&Wire { version: VERSION, answers }).unwrap_or_default();
        let made = self.path.parent().map_or(Ok(()), fs::create_dir_all);
        made.and_then(|()| files::replace(&self.path, &text, 0o644))
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", self.path.display())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_life_reads_what_was_answered_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let state_dir = directory.path().join("state");
        let answers = Answers::new(&state_dir);
        assert!(answers.read().is_empty());
        let share = Share { compute: Milli(300), memory: Mib(2560) };
        let given = AnsweredIds {
            key: Key { pod: "u".into(), container: "main".into() },
            ids: Ids::new(["GPU-a::1".to_owned(), "GPU-a::0".to_owned()]),
            cards: vec![(DeviceRef { id: "GPU-b".into(), index: 1 }, share)],
        };
        let state = State::default();
        state.allocations(|allocations| allocations.answers.restore(vec![given.clone()]));
        answers.write(&state).unwrap();
        assert_eq!(Answers::new(&state_dir).read(), [given]);
        for bad in ["", "{", r#"{"version":2,"answers":[]}"#] {
            fs::write(state_dir.join("answers.json"), bad).unwrap();
            assert!(answers.read().is_empty(), "{bad}");
        }
        // reading something other than a file may never end
        fs::remove_file(state_dir.join("answers.json")).unwrap();
        let made = std::process::Command::new("mkfifo").arg(state_dir.join("answers.json")).status();
        assert!(made.unwrap().success());
        assert!(answers.read().is_empty());
    }

    #[test]
    fn an_answer_that_cannot_be_written_names_its_file() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("state");
        fs::write(&file, "in the way").unwrap();
        let error = Answers::new(&file).write(&State::default()).unwrap_err().to_string();
        assert!(error.contains(&file.display().to_string()), "{error}");
    }
}
