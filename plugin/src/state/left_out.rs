//! GPUs of this machine that are not offered, and why, over all profiles, placed or not.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::device::scan::Remark;

/// By profile. Clones refer to the same list.
#[derive(Clone, Debug, Default)]
pub struct LeftOut(Arc<Mutex<BTreeMap<&'static str, Told>>>);

#[derive(Debug, Default)]
struct Told {
    /// By its last discovery.
    found: Vec<Remark>,
    /// By the profile itself, of GPUs that were found.
    refused: Vec<Remark>,
}

impl LeftOut {
    /// The part of one profile.
    pub fn of(&self, profile: &'static str) -> ProfileLeftOut {
        ProfileLeftOut { all: self.clone(), profile }
    }

    /// With the profiles' names, in their order.
    pub fn all(&self) -> Vec<(&'static str, Remark)> {
        let all = self.0.lock();
        let of = |told: &Told| told.found.iter().chain(&told.refused).cloned().collect::<Vec<_>>();
        all.iter().flat_map(|(profile, told)| of(told).into_iter().map(|remark| (*profile, remark))).collect()
    }
}

#[derive(Clone, Debug)]
pub struct ProfileLeftOut {
    all: LeftOut,
    profile: &'static str,
}

impl ProfileLeftOut {
    /// Takes the remarks of a discovery; those about GPUs that are offered are not kept.
    pub fn set(&self, mut remarks: Vec<Remark>) {
        remarks.retain(|remark| remark.left_out);
        self.all.0.lock().entry(self.profile).or_default().found = remarks;
    }

    /// Takes the GPUs that the profile does not offer although they were found.
    pub fn refuse(&self, remarks: Vec<Remark>) {
        self.all.0.lock().entry(self.profile).or_default().refused = remarks;
    }
}
