//! The library as it is shipped: built by `limiter/build.sh` with zig's linker, which `KERF_ZIG` names.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::support::WAYS;

/// The library, and what the tests run with it in images with an old glibc.
pub struct Shipped {
    pub limiter: PathBuf,
    /// A directory for such an image: the stand-ins' libraries in `lib`, and the tenant's program for each way.
    pub inside: PathBuf,
    zig: PathBuf,
}

impl Shipped {
    /// `None` where the machine has no such linker.
    pub fn get() -> Option<&'static Self> {
        static SHIPPED: OnceLock<Option<Shipped>> = OnceLock::new();
        SHIPPED.get_or_init(Self::make).as_ref()
    }

    fn make() -> Option<Self> {
        let Some(tools) = std::env::var_os("KERF_ZIG") else {
            println!("NOT RUN: KERF_ZIG names no folder with zig; limiter/zig.sh gets it");
            return None;
        };
        let this = std::env::current_exe().unwrap();
        let own = format!("{}-shipped", this.file_name().unwrap().display());
        let inside = Path::new(env!("CARGO_TARGET_TMPDIR")).join(own);
        let zig = Path::new(&tools).join("ziglang/zig");
        let limiter =
            build(std::env::consts::ARCH, &["kerf-limiter", "kerf-standin-libcuda", "kerf-standin-libnvidia-ml"]);
        // the previous run's directory is not needed any more
        let _ = fs::remove_dir_all(&inside);
        fs::create_dir_all(inside.join("lib")).unwrap();
        let shipped = Self { limiter, inside, zig };
        for (built, name) in [("libcuda.so", "libcuda.so.1"), ("libnvidia_ml.so", "libnvidia-ml.so.1")] {
            fs::copy(shipped.limiter.with_file_name(built), shipped.inside.join("lib").join(name)).unwrap();
        }
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/container/tenant.c");
        let library = shipped.inside.join("lib/libcuda.so.1");
        for (way, flags) in
            WAYS.iter().zip([&["-DDIRECT", library.to_str().unwrap()][..], &["-DDLSYM"], &[], &["-DPER_THREAD"]])
        {
            shipped.compile("gnu.2.17", &source, &format!("{way:?}"), &[flags, &["-pthread", "-ldl"]].concat());
        }
        Some(shipped)
    }

    /// Compiles a program for another C library, into [`Self::inside`].
    pub fn compile(&self, libc: &str, source: &Path, name: &str, flags: &[&str]) {
        let mut cc = Command::new(&self.zig);
        cc.args(["cc", "-O1", "-w", "-target", &format!("{}-linux-{libc}", std::env::consts::ARCH), "-o"]);
        cc.arg(self.inside.join(name)).arg(source).args(flags);
        assert!(cc.status().unwrap().success(), "{cc:?}");
    }
}

/// Builds the limiter and other packages for an architecture; returns the limiter's path.
pub fn build(architecture: &str, packages: &[&str]) -> PathBuf {
    // <target>/<profile>/deps/<this program>
    let this = std::env::current_exe().unwrap();
    let mut script = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("build.sh"));
    script.arg(architecture).args(packages).env("CARGO", env!("CARGO"));
    script.env("CARGO_TARGET_DIR", this.ancestors().nth(3).unwrap()).env("CARGO_NET_OFFLINE", "true");
    let output = script.output().unwrap();
    assert!(output.status.success(), "{script:?}: {}", String::from_utf8_lossy(&output.stderr));
    PathBuf::from(String::from_utf8(output.stdout).unwrap().trim_end())
}
