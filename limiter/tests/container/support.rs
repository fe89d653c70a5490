//! A container as the plugin would make it, but without mounts: its files, a simulated GPU, and programs in it.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Output, Stdio};
use std::sync::OnceLock;

use kerf_limiter_contract::limits::{DeviceLimits, Limits};
use kerf_limiter_contract::state::{self, Snapshot};
use kerf_limiter_contract::{allowance, overhead, path};
use kerf_standin_card::card::{Card, Report};
use tempfile::TempDir;

pub const MIB: u64 = 1 << 20;
/// The uuid of the stand-in GPU.
pub const UUID: &str = "GPU-53a1d000-0000-4000-8000-000000000000";

/// How a program reaches the driver.
#[derive(Clone, Copy, Debug)]
pub enum Way {
    Linked,
    Dlsym,
    GetProcAddress,
    PerThread,
}

pub const WAYS: [Way; 4] = [Way::Linked, Way::Dlsym, Way::GetProcAddress, Way::PerThread];

/// Binaries for the tests, built once.
pub struct Built {
    pub limiter: PathBuf,
    pub container: PathBuf,
    /// A directory with the stand-ins' libraries under the driver's names.
    pub libraries: PathBuf,
    programs: PathBuf,
    /// The program in Rust, `examples/tenant.rs`.
    pub rust: PathBuf,
}

impl Built {
    pub fn get() -> &'static Self {
        static BUILT: OnceLock<Built> = OnceLock::new();
        BUILT.get_or_init(Self::make)
    }

    fn make() -> Self {
        // <target>/<profile>/deps/<this program>
        let this = std::env::current_exe().unwrap();
        let [_, _, profile, target] = this.ancestors().take(4).collect::<Vec<_>>()[..] else { panic!("{this:?}") };
        // Cargo does not build libraries for C with tests that need them; fresh ones are not rebuilt
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "--offline", "--manifest-path"]);
        cargo.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")).arg("--target-dir").arg(target);
        if profile.ends_with("release") {
            cargo.arg("--release");
        }
        for package in
            ["kerf-limiter", "kerf-standin-libcuda", "kerf-standin-libnvidia-ml", "kerf-standin-container"]
        {
            cargo.args(["--package", package]);
        }
        assert!(cargo.status().unwrap().success(), "{cargo:?}");
        let mut rust = Command::new(env!("CARGO"));
        rust.args(["build", "--quiet", "--offline", "--package", "kerf-limiter", "--example", "tenant"]);
        rust.arg("--manifest-path").arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml"));
        rust.arg("--target-dir").arg(target).args(profile.ends_with("release").then_some("--release"));
        assert!(rust.status().unwrap().success(), "{rust:?}");
        let library = |name: &str| profile.join(name);

        // the previous run's directory is not needed any more
        let own = Path::new(env!("CARGO_TARGET_TMPDIR")).join(this.file_name().unwrap());
        let _ = fs::remove_dir_all(&own);
        let (libraries, programs) = (own.join("lib"), own.join("bin"));
        fs::create_dir_all(&libraries).unwrap();
        fs::create_dir_all(&programs).unwrap();
        symlink(library("libcuda.so"), libraries.join("libcuda.so.1")).unwrap();
        symlink(library("libnvidia_ml.so"), libraries.join("libnvidia-ml.so.1")).unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/container/tenant.c");
        for (way, flags) in
            WAYS.iter().zip([&["-DDIRECT", "-l:libcuda.so.1"][..], &["-DDLSYM"], &[], &["-DPER_THREAD"]])
        {
            let mut cc = Command::new("cc");
            cc.args(["-O1", "-Wall", "-Wno-unused-variable", "-pthread", "-o"])
                .arg(programs.join(format!("{way:?}")));
            cc.arg(&source).arg("-L").arg(&libraries).args(flags);
            assert!(cc.status().expect("a C compiler").success(), "{cc:?}");
        }
        Self {
            limiter: library("libkerf_limiter.so"),
            container: library("libstandin_container.so"),
            libraries,
            programs,
            rust: profile.join("examples/tenant"),
        }
    }

    pub fn program(&self, way: Way) -> PathBuf {
        self.programs.join(format!("{way:?}"))
    }
}

/// A container. Its files are removed with it.
pub struct Container {
    pub root: TempDir,
    pub card: PathBuf,
    clock: Option<PathBuf>,
    /// What a context takes of the GPU.
    context: u64,
}

impl Container {
    /// With an exclusive GPU of 16 GiB.
    pub fn new(memory: u64, core: u8, ceiling: u8) -> Self {
        let root = tempfile::tempdir().unwrap();
        let card = root.path().join("card");
        Card::create(&card, 16 << 30).unwrap();
        Self { card, ..Self::on_card(root, memory, core, ceiling) }
    }

    /// On a GPU that other containers use as well.
    pub fn beside(card: &Path, memory: u64, core: u8, ceiling: u8) -> Self {
        Self { card: card.to_owned(), ..Self::on_card(tempfile::tempdir().unwrap(), memory, core, ceiling) }
    }

    fn on_card(root: TempDir, memory: u64, core: u8, ceiling: u8) -> Self {
        let device = DeviceLimits { uuid: UUID.into(), memory, core, ceiling, context: 0 };
        let container = Self { root, card: PathBuf::new(), clock: None, context: 0 };
        container.write(path::LIMITS, Limits::new(vec![device]).unwrap().render());
        container.write(path::ALLOWANCE, allowance::blank());
        container.starts();
        container
    }

    /// As the plugin does before each start of a container: a new file over the old one.
    pub fn starts(&self) {
        for (path, beginning, length) in [
            (path::STATE, state::blank(state::VERSION), state::BYTES),
            (path::OVERHEAD, overhead::blank(), overhead::BYTES),
        ] {
            let next = format!("{path}.next");
            self.write(&next, beginning);
            fs::OpenOptions::new().write(true).open(self.file(&next)).unwrap().set_len(length as u64).unwrap();
            fs::rename(self.file(&next), self.file(path)).unwrap();
        }
    }

    /// Lets a context take so much of the GPU, and its programs estimate `estimated`.
    pub fn with_contexts(mut self, takes: u64, estimated: u64) -> Self {
        self.context = takes;
        let limits = fs::read(self.file(path::LIMITS)).unwrap();
        let mut devices = Limits::parse(&limits).unwrap().devices().to_vec();
        devices.iter_mut().for_each(|device| device.context = estimated);
        self.limit(devices);
        self
    }

    /// Replaces its limits.
    pub fn limit(&self, devices: Vec<DeviceLimits>) {
        self.write(path::LIMITS, Limits::new(devices).unwrap().render());
    }

    /// Lets its programs live in simulated time.
    pub fn with_clock(mut self, clock: &Path) -> Self {
        self.clock = Some(clock.to_owned());
        self
    }

    pub fn file(&self, path: &str) -> PathBuf {
        self.root.path().join(path.trim_start_matches('/'))
    }

    pub fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        let path = self.file(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    pub fn command(&self, way: Way, commands: &[&str]) -> Command {
        self.program(&Built::get().program(way), commands)
    }

    pub fn program(&self, program: &Path, arguments: &[&str]) -> Command {
        let built = Built::get();
        let mut command = Command::new(program);
        command.args(arguments).env_clear();
        command.env("LD_LIBRARY_PATH", &built.libraries).env("STANDIN_CARD", &self.card);
        command.env("LD_PRELOAD", format!("{}:{}", built.limiter.display(), built.container.display()));
        command.env("STANDIN_ROOT", self.root.path()).env("STANDIN_CONTEXT_MIB", (self.context / MIB).to_string());
        if let Some(clock) = &self.clock {
            command.env("STANDIN_CLOCK", clock);
        }
        command
    }

    /// Runs a program to its end; returns its output.
    pub fn run(&self, way: Way, commands: &[&str]) -> Vec<String> {
        let output = self.command(way, commands).output().unwrap();
        lines(&output)
    }

    /// Starts a program and waits until it is at its command `hold`, which is appended if `commands` do not contain it.
    pub fn hold(&self, way: Way, commands: &[&str]) -> Held {
        let own = commands.iter().any(|c| matches!(*c, "hold" | "become"));
        self.hold_command(self.command(way, &[commands, if own { &[] } else { &["hold"] }].concat()))
    }

    /// Starts a program and waits until it is at its command `hold`.
    pub fn hold_command(&self, mut command: Command) -> Held {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let stdin = child.stdin.take();
        let lines = until_ready(&mut stdout);
        Held { child, stdin, stdout, lines }
    }

    pub fn snapshot(&self) -> Snapshot {
        Snapshot::read(fs::File::open(self.file(path::STATE)).unwrap()).unwrap()
    }

    pub fn report(&self) -> Report {
        Card::look(&self.card).unwrap().report(0)
    }
}

/// A program that waits.
pub struct Held {
    pub child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    pub lines: Vec<String>,
}

fn until_ready(stdout: &mut BufReader<ChildStdout>) -> Vec<String> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        assert!(stdout.read_line(&mut line).unwrap() > 0, "ended after {lines:?}");
        match line.trim_end() {
            "ready" => return lines,
            other => lines.push(other.to_owned()),
        }
    }
}

impl Held {
    /// What follows this word in a line that the program has printed.
    pub fn told(&self, word: &str) -> String {
        self.lines.iter().find_map(|line| line.strip_prefix(word)?.strip_prefix(' ')).unwrap().to_owned()
    }

    /// Lets it go on to its next `hold`; returns its output since.
    pub fn next(&mut self) -> Vec<String> {
        self.stdin.as_mut().unwrap().write_all(b"x").unwrap();
        until_ready(&mut self.stdout)
    }

    /// Lets it go on to its end; returns its output since.
    pub fn finish(mut self) -> Vec<String> {
        if let Some(mut stdin) = self.stdin.take() {
            stdin.write_all(b"x").unwrap();
        }
        let rest = (&mut self.stdout).lines().map(Result::unwrap).collect();
        self.child.wait().unwrap();
        rest
    }

    /// Lets it go on to its end; returns how it ended.
    pub fn ends(mut self) -> ExitStatus {
        drop(self.stdin.take().map(|mut stdin| stdin.write_all(b"x")));
        self.child.wait().unwrap()
    }

    /// Kills it, and waits until all of its processes are gone.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        // a process that it had started has the other end as well
        std::io::copy(&mut self.stdout, &mut std::io::sink()).unwrap();
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn lines(output: &Output) -> Vec<String> {
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    text.lines().map(str::to_owned).collect()
}
