//! NVIDIA's own libraries without a GPU: which functions they have, and which functions a program gets for them. Their
//! behaviour on a GPU is for `tests/gpu`.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::support::{Built, Container, MIB};

/// Folders with NVIDIA's libraries; empty where the machine has none.
fn libraries() -> Vec<PathBuf> {
    let named = std::env::var("KERF_NVIDIA_LIBRARIES").unwrap_or_default();
    let folders: Vec<_> = named.split(':').filter(|folder| !folder.is_empty()).map(PathBuf::from).collect();
    if folders.is_empty() {
        println!(
            "NOT RUN: KERF_NVIDIA_LIBRARIES names no folder with NVIDIA's libraries; limiter/tests/nvidia.sh gets them"
        );
    }
    folders
}

/// The functions that a library has.
fn functions(library: &Path) -> BTreeSet<String> {
    let output = Command::new("nm").args(["-D", "--defined-only"]).arg(library).output().expect("nm, of binutils");
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let functions = text.lines().filter_map(|line| {
        let (kind, name) = line.split_once(' ')?.1.split_once(' ')?;
        (kind == "T").then(|| name.split('@').next().unwrap_or_default().to_owned())
    });
    functions.filter(|name| name.starts_with("cu") || name.starts_with("nvml")).collect()
}

/// A driver's name as `cuGetProcAddress` takes it.
fn base(name: &str) -> &str {
    let name = name.strip_suffix("_ptsz").or(name.strip_suffix("_ptds")).unwrap_or(name);
    match name.rsplit_once("_v") {
        Some((base, digits)) if digits.len() == 1 && digits.bytes().all(|digit| digit.is_ascii_digit()) => base,
        _ => name,
    }
}

/// The output of `symbols.c` for these names.
fn answers(folder: &Path, names: &BTreeSet<String>, limited: bool) -> (String, Vec<[String; 5]>) {
    let container = Container::new(1024 * MIB, 50, 50);
    let program = container.root.path().join("symbols");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/container/symbols.c");
    let mut cc = Command::new("cc");
    assert!(cc.args(["-O1", "-Wall", "-o"]).arg(&program).arg(source).arg("-ldl").status().unwrap().success());
    let mut command = container.program(&program, &[]);
    command.env("LD_LIBRARY_PATH", folder).stdin(Stdio::piped()).stdout(Stdio::piped());
    if !limited {
        command.env_remove("LD_PRELOAD");
    }
    let mut child = command.spawn().unwrap();
    let list = names.iter().cloned().collect::<Vec<_>>().join("\n");
    let mut stdin = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || stdin.write_all(list.as_bytes()).unwrap());
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let (first, rest) = text.split_once('\n').unwrap();
    let lines = rest.lines().map(|line| {
        let words: Vec<_> = line.split(' ').map(str::to_owned).collect();
        words.try_into().unwrap_or_else(|words| panic!("{words:?}"))
    });
    (first.to_owned(), lines.collect())
}

#[test]
fn a_program_is_given_the_limiters_function_wherever_it_would_get_that_one_of_the_driver() {
    for folder in libraries() {
        let (cuda, nvml) = (functions(&folder.join("libcuda.so.1")), functions(&folder.join("libnvidia-ml.so.1")));
        let ours = functions(&Built::get().limiter);
        let names: BTreeSet<String> =
            cuda.iter().chain(&nvml).flat_map(|name| [name.clone(), base(name).to_owned()]).collect();
        let (init, without) = answers(&folder, &names, false);
        let (limited, with) = answers(&folder, &names, true);
        // no GPU: 100; no driver: 9. The limiter does not change that
        assert_eq!((init.as_str(), limited.as_str()), ("init 100 9", "init 100 9"), "{folder:?}");
        assert!(without.len() > 600, "{folder:?}: {}", without.len());
        assert_eq!(without.len(), with.len(), "{folder:?}");
        let mut given = BTreeSet::new();
        for (driver, limiter) in without.iter().zip(&with) {
            assert_eq!(driver[..4], limiter[..4], "{folder:?}");
            let [name, _, _, symbol, file] = limiter;
            let expected = ours.contains(symbol.as_str());
            assert_eq!(expected, file == "libkerf_limiter.so", "{folder:?}: {name} is {symbol} of {file}");
            if expected {
                given.insert(symbol.clone());
            }
        }
        // functions that the limiter has and this driver does not are of later drivers
        let later: Vec<_> =
            ours.difference(&given).filter(|name| cuda.contains(*name) || nvml.contains(*name)).collect();
        assert!(later.is_empty(), "{folder:?}: never given: {later:?}");
        println!("{}: {} names, {} of the limiter", folder.display(), names.len(), given.len());
    }
}

/// Why the limiter does not replace some functions that allocate, map, launch or capture, by the beginning of their names.
const LEFT_ALONE: [(&str, &str); 35] = [
    ("cuMemAllocHost", "memory of the host"),
    ("cuMemHost", "memory of the host"),
    ("cuMemAddressReserve", "addresses without memory"),
    ("cuMemPool", "takes nothing by itself; what is allocated from a pool counts"),
    ("cuMulticast", "addresses of memory that counts by its own handle"),
    ("cuExternalMemoryGetMapped", "a view of memory that counted when it was imported"),
    ("cuImportExternalSemaphore", "no memory of the card's"),
    ("cuGL", "graphics: not counted, and said so"),
    ("cuGraphics", "graphics: not counted, and said so"),
    ("cuVDPAU", "graphics: not counted, and said so"),
    ("cuEGL", "graphics: not counted, and said so"),
    ("cuGreenCtxCreate", "a part of a context that counted"),
    ("cuGraphCreate", "an empty graph; its nodes count when it runs"),
    ("cuGraphConditionalHandleCreate", "a handle"),
    ("cuGraphMemAllocNodeGetParams", "a question"),
    ("cuLaunchHostFunc", "runs on the host"),
    ("cuIpcOpenEventHandle", "an event"),
    ("cuUserObjectCreate", "an object of the host"),
    ("cuGetExportTable", "not documented by NVIDIA; named as a way around"),
    ("cuTensorMap", "a description"),
    ("cuStreamBeginCapture", "whether a stream is captured is asked before each launch and mark"),
    ("cuStreamBeginRecapture", "as the others that begin a capture"),
    ("cuStreamEndCapture", "as the functions that begin a capture"),
    ("cuStreamUpdateCaptureDependencies", "the order of what is captured"),
    ("cuStreamIsCapturing", "a question"),
    (
        "cuThreadExchangeStreamCaptureMode",
        "the thread's own mode, which the limiter gives back after its own calls",
    ),
    ("cuStreamCreate", "a stream is known from its first launch"),
    ("cuGreenCtxStreamCreate", "a stream is known from its first launch, with its context"),
    ("cuStreamQuery", "a question"),
    ("cuStreamWait", "order among streams"),
    ("cuStreamWriteValue", "the card writes a number; no kernel"),
    ("cuStreamBatchMemOp", "the card writes and waits for numbers; no kernel"),
    ("cuStreamAddCallback", "runs on the host"),
    ("cuStreamAttachMemAsync", "says which stream may use memory that counted"),
    ("cudbg", "for debuggers"),
];

#[test]
fn every_function_of_the_driver_that_allocates_or_launches_is_known() {
    let telling = [
        "Alloc",
        "MemCreate",
        "ArrayCreate",
        "CtxCreate",
        "Import",
        "Launch",
        "Reserve",
        "Map",
        "Instantiate",
        "Open",
        "Multicast",
        "Capture",
        "Stream",
    ];
    let harmless = |name: &str| {
        [
            "cuMemGet",
            "cuArrayGet",
            "cuMipmappedArrayGet",
            "cuStreamGet",
            "cuStreamSetAttribute",
            "cuStreamCopyAttributes",
            "cuCtxGet",
            "cuModule",
            "cuTexRef",
            "cuMemUnmap",
        ]
        .iter()
        .any(|beginning| name.starts_with(beginning))
    };
    for folder in libraries() {
        let ours = functions(&Built::get().limiter);
        let mut unknown = BTreeMap::new();
        for name in functions(&folder.join("libcuda.so.1")).difference(&ours) {
            let speaks = telling.iter().any(|word| name.contains(word));
            let excused = LEFT_ALONE.iter().any(|(beginning, _)| name.starts_with(beginning));
            if speaks && !excused && !harmless(name) {
                unknown.insert(base(name).to_owned(), name.clone());
            }
        }
        assert!(unknown.is_empty(), "{folder:?}: {unknown:?}");
    }
}
