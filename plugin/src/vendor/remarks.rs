//! The remarks of a driver's last discovery. The log has each once, when it is new.

use parking_lot::Mutex;

use crate::device::scan::Remark;

#[derive(Default)]
pub struct Remarks(Mutex<Vec<Remark>>);

impl Remarks {
    /// Takes the remarks of a discovery by this backend.
    pub(super) fn take(&self, backend: &'static str, remarks: Vec<Remark>) {
        let mut known = self.0.lock();
        for remark in remarks.iter().filter(|remark| !known.contains(remark)) {
            let (gpu, why, code) = (&remark.subject, &remark.why, remark.why.code());
            match (remark.left_out, remark.is_problem()) {
                (true, true) => tracing::warn!(backend, gpu, code, %why, "GPU left out"),
                (true, false) => tracing::info!(backend, gpu, code, %why, "GPU left out"),
                (false, true) => tracing::warn!(backend, subject = gpu, code, %why, "GPUs"),
                (false, false) => tracing::info!(backend, gpu, code, %why, "GPU"),
            }
        }
        *known = remarks;
    }

    pub(super) fn all(&self) -> Vec<Remark> {
        self.0.lock().clone()
    }
}
