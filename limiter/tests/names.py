#!/usr/bin/env python3
"""Lists the names of NVIDIA's driver's functions that programs and libraries of PyPI ask for, for the test that compares
them with the limiter's: names/<package>.txt. Needs pip and the network, no card; some packages have hundreds of megabytes.

    limiter/tests/names.py                      all packages
    limiter/tests/names.py cuda-bindings ...    some

A name is listed where it stands in a shared library as a whole string (that is how a program gives it to dlsym or
cuGetProcAddress, and how a linked one names it), or as a word in a source that is compiled or run on the spot. So a list has
a few names that are no functions, and functions that a package only knows of: CUPTI, in Triton's, names all that there are.
"""

import pathlib
import re
import subprocess
import sys
import tempfile
import zipfile

# of packages with the same name but for the version of CUDA, both
PACKAGES = """
    cuda-bindings==12.9.10 cuda-bindings==13.5.0 cuda-core==1.2.2 cupy-cuda12x==14.2.0 cupy-cuda13x==14.2.0
    jax-cuda12-pjrt==0.12.0.1 jax-cuda12-plugin==0.12.0.1 jax-cuda13-pjrt==0.12.0.1 jax-cuda13-plugin==0.12.0.1
    jaxlib==0.12.0.1 numba-cuda==0.30.4 nvidia-cuda-runtime==13.5.37 nvidia-cuda-runtime-cu12==12.9.79 triton==3.9.0
""".split()

IN_LIBRARY = re.compile(rb"(?<![A-Za-z0-9_$.])cu[A-Z][A-Za-z0-9]*(?:_v[0-9])?(?:_ptsz|_ptds)?(?=[\0@])")
IN_SOURCE = re.compile(rb"\bcu[A-Z][A-Za-z0-9]*(?:_v[0-9])?(?:_ptsz|_ptds)?\b")
# other libraries of NVIDIA's, complex numbers of CUDA's headers, words of prose
OTHERS = re.compile(
    r"cu(File|Tensor(?!Map)|Quantum|Sparse|Solver|Signal(?!External)|Swap|Mask|Complex|(Double|Float)Complex"
    r"|C(add|mul|div|abs|sub|onj|real|imag|fma)|(?!GL|EGL|VDPAU|D3D)[A-Z]{2})|.{65}|.{1,5}$"
)

TAGS = ["--python-version=3.12", "--implementation=cp", "--abi=cp312", "--abi=abi3", "--abi=none"]
TAGS += [f"--platform=manylinux{tag}_x86_64" for tag in ("2014", "_2_17", "_2_24", "_2_27", "_2_28", "_2_31", "_2_34")]


def names(content, pattern):
    found = (match.decode() for match in pattern.findall(content))
    return {name for name in found if not OTHERS.match(name)}


def of_wheel(path):
    found = set()
    with zipfile.ZipFile(path) as wheel:
        for entry in wheel.infolist():
            suffix = pathlib.PurePath(entry.filename).suffix
            content = wheel.read(entry)
            if content.startswith(b"\x7fELF"):
                found |= names(content, IN_LIBRARY)
            elif suffix in {".py", ".c", ".cpp", ".cu"}:
                found |= names(content, IN_SOURCE)
    return found


def main(wanted):
    folder = pathlib.Path(__file__).parent / "names"
    for package in PACKAGES:
        name = package.split("==")[0]
        if wanted and name not in wanted:
            continue
        with tempfile.TemporaryDirectory() as directory:
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", *TAGS]
            subprocess.run([*pip, f"--dest={directory}", package], check=True)
            (wheel,) = pathlib.Path(directory).iterdir()
            version = wheel.name.split("-")[1]
            found = sorted(of_wheel(wheel))
            print(f"{wheel.name}: {len(found)} names")
        text = [f"# {name} {version}, by limiter/tests/names.py", *found]
        folder.mkdir(exist_ok=True)
        (folder / f"{name}-{version}.txt").write_text("\n".join(text) + "\n")


main(sys.argv[1:])
