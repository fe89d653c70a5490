//! Which of the errors that the driver reports (Xid) make a GPU unhealthy, and for how long. Pure.

use std::collections::BTreeSet;
use std::str::FromStr;

/// XIDs that a program causes, not the GPU: exceptions of kernels, MMU faults and cleanup after them.
pub const APPLICATION_XIDS: [u64; 6] = [13, 31, 43, 45, 68, 109];

/// Numbers of errors, as NVIDIA's plugin takes them in its variables: joined by commas, or `all` (`xids`) of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Xids {
    All,
    These(BTreeSet<u64>),
}

impl Default for Xids {
    fn default() -> Self {
        Self::These(BTreeSet::new())
    }
}

impl Xids {
    fn names(&self, xid: u64) -> bool {
        match self {
            Self::All => true,
            Self::These(these) => these.contains(&xid),
        }
    }
}

impl FromStr for Xids {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let words = text.split(',').map(|word| word.trim().to_ascii_lowercase()).filter(|word| !word.is_empty());
        let mut these = BTreeSet::new();
        for word in words {
            if word == "all" || word == "xids" {
                return Ok(Self::All);
            }
            let number = word.parse().map_err(|_| {
                format!("{word:?} is not the number of an error (Xid): expected numbers joined by commas, or all")
            })?;
            these.insert(number);
        }
        Ok(Self::These(these))
    }
}

/// What an administrator says of errors.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ErrorPolicy {
    /// These do not count, beside [`APPLICATION_XIDS`].
    pub ignored: Xids,
    /// These count, whatever is ignored.
    pub counted: Xids,
    /// A GPU that had one of these stays unhealthy.
    pub lasting: Xids,
}

/// What an error means for its GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing: a program has caused it, or it is to be ignored.
    Passed,
    /// It is unhealthy until it was quiet for long enough.
    Critical,
    /// It is unhealthy for the rest of this process.
    Lasting,
}

impl ErrorPolicy {
    /// `None`: an error without a number, such as a double-bit error of memory.
    pub fn verdict(&self, xid: Option<u64>) -> Verdict {
        let lasting = match xid {
            Some(xid) => {
                let ignored = self.ignored.names(xid) || APPLICATION_XIDS.contains(&xid);
                if ignored && !self.counted.names(xid) {
                    return Verdict::Passed;
                }
                self.lasting.names(xid)
            }
            None if self.ignored == Xids::All => return Verdict::Passed,
            None => self.lasting == Xids::All,
        };
        if lasting { Verdict::Lasting } else { Verdict::Critical }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(ignored: &str, counted: &str, lasting: &str) -> ErrorPolicy {
        let [ignored, counted, lasting] = [ignored, counted, lasting].map(|text| text.parse().unwrap());
        ErrorPolicy { ignored, counted, lasting }
    }

    #[test]
    fn lists_are_read_as_nvidias_plugin_reads_them() {
        assert_eq!("".parse(), Ok(Xids::default()));
        assert_eq!(" 94, 79,".parse(), Ok(Xids::These([79, 94].into())));
        for all in ["all", "ALL", "xids", "13,all"] {
            assert_eq!(all.parse(), Ok(Xids::All), "{all}");
        }
        let error = "13,fatal".parse::<Xids>().unwrap_err();
        assert!(error.contains("\"fatal\""), "{error}");
        assert!("-1".parse::<Xids>().is_err());
    }

    #[test]
    fn each_choice_of_an_administrator_is_kept() {
        use Verdict::{Critical, Lasting, Passed};
        let default = ErrorPolicy::default();
        for xid in APPLICATION_XIDS {
            assert_eq!(default.verdict(Some(xid)), Passed);
        }
        assert_eq!([Some(94), Some(79), None].map(|xid| default.verdict(xid)), [Critical; 3]);
        let of = |policy: &ErrorPolicy, xids: &[Option<u64>]| -> Vec<_> {
            xids.iter().map(|xid| policy.verdict(*xid)).collect()
        };
        let asked = [Some(94), Some(79), Some(31), None];
        assert_eq!(of(&policy("94", "", ""), &asked), [Passed, Critical, Passed, Critical]);
        assert_eq!(of(&policy("", "31", ""), &asked), [Critical, Critical, Critical, Critical]);
        assert_eq!(of(&policy("", "", "79"), &asked), [Critical, Lasting, Passed, Critical]);
        assert_eq!(of(&policy("all", "", ""), &asked), [Passed; 4]);
        assert_eq!(of(&policy("all", "79", "79"), &asked), [Passed, Lasting, Passed, Passed]);
        // what is named to count wins
        assert_eq!(of(&policy("94", "all", "all"), &asked), [Lasting; 4]);
    }
}
