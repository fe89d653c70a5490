//! Identity of processes: a pid is used again later, a pid together with a start time is not.

use std::fs;
use std::path::Path;

/// The fields of `/proc/<pid>/stat` that kerf uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// In the PID namespace of that `/proc`.
    pub pid: u32,
    /// `R` for a running process, `Z` for one that has ended and was not waited for.
    pub state: char,
    /// Threads that have not ended.
    pub threads: u64,
    /// Clock ticks from the boot of the machine to the start of the process (field 22).
    pub start: u64,
}

impl Stat {
    /// Reads the process with this directory, `/proc/<pid>` or `/proc/self`. `None` where it is gone.
    pub fn of(process: impl AsRef<Path>) -> Option<Self> {
        Self::parse(&fs::read_to_string(process.as_ref().join("stat")).ok()?)
    }

    fn parse(text: &str) -> Option<Self> {
        // "pid (name) state ...": the name may contain anything, also parentheses
        let (head, rest) = text.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        let field = |number: usize| fields.get(number - 3).copied();
        Some(Self {
            pid: head.split_once(' ')?.0.parse().ok()?,
            state: field(3)?.chars().next()?,
            threads: field(20)?.parse().ok()?,
            start: field(22)?.parse().ok()?,
        })
    }

    /// Whether the main thread has ended; other threads may still run.
    pub fn ended(&self) -> bool {
        matches!(self.state, 'Z' | 'X')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_hold_anything() {
        let text = "42 (a) b (c) Z 1 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 3 0 987654 0 0 18446744073709551615\n";
        assert_eq!(Stat::parse(text), Some(Stat { pid: 42, state: 'Z', threads: 3, start: 987_654 }));
        assert_eq!(Stat::parse("42 (a) Z 1"), None);
    }

    #[test]
    fn this_process_is_found() {
        let own = Stat::of("/proc/self").unwrap();
        assert_eq!((own.pid, own.ended()), (std::process::id(), false));
        assert_eq!(Stat::of("/proc/0"), None);
    }
}
