"""The guest's Python on the host: it runs there under the guest's own loader, and compiles what goes into the guest.

Under TCG, compiling a library at each start of a program would cost seconds; so there are only .pyc files in the guest,
made by the Python that will read them, whatever Python this host has.

Ref: Python documentation, "compileall"; ld.so(8), --library-path and --argv0.
"""

import fnmatch
import os
import shutil
import subprocess
from pathlib import Path

from sidecar.qemu.linux.apt import AptFailed, last_line

PROGRAM_SECONDS = 300
LOADER = "ld-linux-x86-64.so.2"

# Parts of the standard library for terminals, networks, packaging and testing: a fifth of the boot's user-space half is
# the kernel's unpacking of the initramfs.
DROPPED = (
    "LICENSE.txt", "__pycache__", "_distutils_hack", "config-3.*", "_pyrepl", "curses", "dbm", "distutils", "ensurepip",
    "idlelib", "lib2to3", "msilib", "pydoc_data", "sqlite3", "test", "tkinter", "turtle*", "turtledemo", "venv",
    "wsgiref", "xmlrpc", "unittest", "doctest*", "pydoc*", "mailbox*", "ftplib*", "imaplib*", "nntplib*", "poplib*",
    "smtp*", "telnetlib*", "_pydecimal*", "_pyio*", "_aix_*", "_osx_*", "cgi*", "html", "http", "xml", "optparse*",
    "_codecs_*", "_curses*", "_dbm*", "_gdbm*", "_sqlite3*", "_ssl*", "_test*", "_tkinter*", "_xx*", "nis*",
    "readline*", "sitecustomize.py",
)  # fmt: skip

def python_library(root: Path) -> Path:
    """Python's library in the guest's tree, such as usr/lib/python3.11. Raises AptFailed."""
    found = [path for path in root.glob("usr/lib/python3.*") if (path / "os.py").is_file()]
    if len(found) != 1:
        raise AptFailed(f"expected one Python in {root}, found {len(found)}")
    return found[0]


def compiled_library(root: Path, scratch: Path) -> Path:
    """A copy of Python's library below `scratch`, compiled, without what is DROPPED."""
    library = python_library(root)
    copy = scratch / library.name
    shutil.copytree(library, copy, symlinks=True, ignore=_dropped)
    compile_python(root, copy, prefix=f"/{library.relative_to(root).as_posix()}")
    return copy


def compile_python(root: Path, sources: Path, *, prefix: str) -> None:
    """Replaces every .py below `sources` by the .pyc that the guest's Python makes of it. Raises AptFailed.

    `prefix` is where the files will be in the guest: tracebacks show it.
    """
    library = python_library(root)
    # Not -I: it would ignore PYTHONHOME, and the library would be this host's, if it has the same version.
    options = ("-B", "-P", "-s", "-S", "-m", "compileall", "-q", "-b", "-s", str(sources), "-p", prefix)
    run_program(
        root, f"usr/bin/{library.name}", *options, str(sources), environment={"PYTHONHOME": str(root / "usr")}
    )
    for file in sources.rglob("*.py"):
        file.unlink()


def run_program(
    root: Path, program: str, *arguments: str, name: str | None = None, environment: dict[str, str] | None = None
) -> str:
    """What one of the guest's programs prints on the host; `name` is its argv[0]. Raises AptFailed."""
    loaders = [path for path in (root / "lib", root / "usr" / "lib") if (path / "x86_64-linux-gnu" / LOADER).exists()]
    if not loaders:
        raise AptFailed(f"there is no loader ({LOADER}) in {root}")
    folders = [str(root / folder / "x86_64-linux-gnu") for folder in ("lib", "usr/lib")]
    command = [
        str(loaders[0] / "x86_64-linux-gnu" / LOADER), "--library-path", ":".join(folders),
        "--argv0", name or program, str(root / program), *arguments,
    ]  # fmt: skip
    run = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PROGRAM_SECONDS, check=False,
        env={"PATH": os.defpath, "LC_ALL": "C.UTF-8", **(environment or {})},
    )  # fmt: skip
    if run.returncode != 0:
        raise AptFailed(f"the guest's {program} ended with {run.returncode} on this host: {last_line(run.stderr)}")
    return run.stdout


def _dropped(folder: str, names: list[str]) -> set[str]:
    return {name for name in names if any(fnmatch.fnmatch(name, pattern) for pattern in DROPPED)}
