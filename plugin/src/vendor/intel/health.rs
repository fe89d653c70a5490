//! The programs that know the health of Intel's GPUs, of which at most one is asked.

use crate::device::backend::HostDevice;
use crate::device::scan::{Remark, ScanIssue};
use crate::vendor::flags::FlagError;
use crate::vendor::intel::flags::{IntelArgs, TEMPERATURE};
use crate::vendor::intel::level_zero::LevelZero;
use crate::vendor::intel::xpumd::Xpumd;

#[derive(Clone, Debug, PartialEq)]
pub enum Reporter {
    LevelZero(LevelZero),
    Xpumd(Xpumd),
}

impl Reporter {
    /// The one that the flags name.
    ///
    /// # Errors
    /// Where they name both, or limits that xpumd does not obey.
    pub(super) fn of(args: &IntelArgs) -> Result<Option<Self>, FlagError> {
        let limits = [args.temp_limit, args.gpu_temp_limit, args.memory_temp_limit];
        let Some(socket) = args.xpumd_endpoint.clone() else {
            let sidecar = LevelZero { socket: args.levelzero_socket.clone(), limits: limits.map(f64::from) };
            return Ok(args.health_management.then_some(Self::LevelZero(sidecar)));
        };
        if args.health_management {
            return Err(FlagError("--xpumd-endpoint and --health-management cannot be used together".to_owned()));
        }
        if limits != [TEMPERATURE; 3] {
            let wrong = "--temp-limit, --gpu-temp-limit and --memory-temp-limit cannot be used with --xpumd-endpoint: xpumd \
                         judges temperatures by limits of its own";
            return Err(FlagError(wrong.to_owned()));
        }
        Ok(Some(Self::Xpumd(Xpumd { socket, severity: args.xpumd_severity.into() })))
    }

    /// Ids of unhealthy GPUs. Blocks; not to be called from an async task.
    ///
    /// # Errors
    /// Where it does not answer: then only the files tell health.
    pub(super) fn unhealthy(&self, hosts: &[HostDevice]) -> Result<Vec<String>, Remark> {
        let (name, socket, told) = match self {
            Self::LevelZero(sidecar) => ("Level-Zero sidecar", &sidecar.socket, sidecar.unhealthy(hosts)),
            Self::Xpumd(xpumd) => ("xpumd", &xpumd.socket, xpumd.unhealthy(hosts)),
        };
        let silent =
            || Remark { subject: name.to_owned(), left_out: false, why: ScanIssue::NoReport(socket.clone()) };
        told.ok_or_else(silent)
    }
}
