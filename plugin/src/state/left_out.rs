//! GPUs of this machine that are not offered, and why, over all profiles, placed or not.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::device::scan::Remark;

/// By profile, as its last discovery told. Clones refer to the same list.
#[derive(Clone, Debug, Default)]
pub struct LeftOut(Arc<Mutex<BTreeMap<&'static str, Vec<Remark>>>>);

impl LeftOut {
    /// The part of one profile.
    pub fn of(&self, profile: &'static str) -> ProfileLeftOut {
        ProfileLeftOut { all: self.clone(), profile }
    }

    /// With the profiles' names, in their order.
    pub fn all(&self) -> Vec<(&'static str, Remark)> {
        let all = self.0.lock();
        all.iter().flat_map(|(profile, remarks)| remarks.iter().map(|remark| (*profile, remark.clone()))).collect()
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
        self.all.0.lock().insert(self.profile, remarks);
    }
}
