//! The names of the driver's functions: which of them the limiter has to know, and which it leaves alone.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::Built;

/// The functions that a library has.
pub fn functions(library: &Path) -> BTreeSet<String> {
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
pub fn base(name: &str) -> &str {
    let name = name.strip_suffix("_ptsz").or(name.strip_suffix("_ptds")).unwrap_or(name);
    match name.rsplit_once("_v") {
        Some((base, digits)) if digits.len() == 1 && digits.bytes().all(|digit| digit.is_ascii_digit()) => base,
        _ => name,
    }
}

/// NVIDIA's headers up to CUDA 13.5 do not have it, nor has any of the drivers that the tests read: its list of callbacks for
/// profilers (CUPTI) names it. The limiter could not know its arguments.
const UNDOCUMENTED: &str = "not documented by NVIDIA; named by CUPTI";

/// Why the limiter does not replace some functions that allocate, map, launch or capture, by the beginning of their names.
const LEFT_ALONE: [(&str, &str); 41] = [
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
    ("cuD3D", "of Windows"),
    ("cuLogicalEndpoint", "ways for other machines to memory that counts by its own handle"),
    ("cuGraphLaunchWithArguments", UNDOCUMENTED),
    ("cuLaunchKernelExHandle", UNDOCUMENTED),
    ("cuStreamSetFlags", UNDOCUMENTED),
    ("cuSubgrid", UNDOCUMENTED),
];

/// In the names of functions that allocate, map, launch or capture.
const TELLING: [&str; 13] = [
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

/// The beginnings of names that have one of those words, of functions that only ask or describe.
const HARMLESS: [&str; 10] = [
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
];

/// What names are.
#[derive(Clone, Copy, PartialEq)]
pub enum Names {
    /// A driver's own, each of one function.
    Exported,
    /// Those that programs ask for: as a rule without a version, and `cuGetProcAddress` finds one of the family.
    Asked,
}

/// The names of functions that allocate, map, launch or capture and are neither replaced by the limiter nor left alone for a
/// reason.
pub fn unknown<'a>(names: impl Iterator<Item = &'a str>, kind: Names) -> BTreeSet<&'a str> {
    unknown_to(&functions(&Built::get().limiter), names, kind)
}

fn unknown_to<'a>(ours: &BTreeSet<String>, names: impl Iterator<Item = &'a str>, kind: Names) -> BTreeSet<&'a str> {
    let families: BTreeSet<&str> = ours.iter().map(|name| base(name)).collect();
    let known = |name: &str| {
        ours.contains(name)
            || (kind == Names::Asked && families.contains(name))
            || LEFT_ALONE.iter().any(|(beginning, _)| name.starts_with(beginning))
            || HARMLESS.iter().any(|beginning| name.starts_with(beginning))
    };
    names.filter(|name| TELLING.iter().any(|word| name.contains(word)) && !known(name)).collect()
}

/// What programs of PyPI ask the driver for, by `tests/names.py`: package and version, and names.
fn asked_for() -> BTreeMap<String, BTreeSet<String>> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/names");
    let lists = fs::read_dir(folder).unwrap().map(|entry| {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        let names = text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect();
        (path.file_stem().unwrap().to_str().unwrap().to_owned(), names)
    });
    lists.collect()
}

#[test]
fn every_function_that_programs_ask_for_and_that_allocates_or_launches_is_known() {
    let lists = asked_for();
    let programs = [
        "cuda-bindings",
        "cuda-core",
        "cupy",
        "jax-cuda12",
        "jax-cuda13",
        "jaxlib",
        "numba-cuda",
        "nvidia-cuda-runtime",
        "triton",
    ];
    for program in programs {
        assert!(lists.keys().any(|name| name.starts_with(program)), "{program}");
    }
    for (program, names) in &lists {
        let unknown = unknown(names.iter().map(String::as_str), Names::Asked);
        assert!(unknown.is_empty(), "{program}: {unknown:?}");
        println!("{program}: {} names", names.len());
    }
}

#[test]
fn a_name_is_unknown_unless_it_is_replaced_or_left_alone_for_a_reason() {
    let ours = BTreeSet::from(["cuMemAlloc_v2", "cuLaunchKernel", "cuLaunchKernel_ptsz"].map(str::to_owned));
    let names = [
        "cuMemAlloc",
        "cuMemAlloc_v2",
        "cuMemAlloc_v3",
        "cuLaunchKernel_ptsz",
        "cuLaunchKernelNext",
        "cuMemAllocHost",
        "cuStreamGetFlags",
        "cuCtxGetDevice",
    ];
    let unknown = |kind| unknown_to(&ours, names.into_iter(), kind);
    assert_eq!(unknown(Names::Asked), BTreeSet::from(["cuMemAlloc_v3", "cuLaunchKernelNext"]));
    assert_eq!(unknown(Names::Exported), BTreeSet::from(["cuMemAlloc", "cuMemAlloc_v3", "cuLaunchKernelNext"]));
}

#[test]
fn no_function_is_left_alone_that_nothing_asks_for() {
    let lists = asked_for();
    // drivers have those that are for debuggers, and no program of the lists is one
    for (beginning, reason) in LEFT_ALONE.iter().filter(|(beginning, _)| *beginning != "cudbg") {
        let asked = lists.values().flatten().any(|name| name.starts_with(beginning));
        assert!(asked, "{beginning}: {reason}");
    }
}
