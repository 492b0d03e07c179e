"""The packages from the package index that the client imports in the guest, as this host has them installed.

    construct    every layout is one of its Structs
    capstone     decodes the instruction behind an access to a device's memory, for a virtual machine

An archive of its own: its 10 MB are compiled and packed again only when a version changes, not with every edit of ours.
What a package needs only to be compiled against, and tests, stay behind.
"""

import importlib.metadata
import importlib.util
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from sidecar.qemu.linux.cpio import Entry
from sidecar.qemu.linux.python import compile_python

LIBRARIES = ("construct", "capstone")
ON_PATH = "usr/lib/python3/dist-packages"
DROPPED = ("__pycache__", "include", "tests")


def library_entries(root: Path) -> Iterator[Entry]:
    """The entries; `root` has the guest's Python."""
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch)
        for name in LIBRARIES:
            shutil.copytree(library(name), copy / name, ignore=shutil.ignore_patterns(*DROPPED))
        compile_python(root, copy, prefix=f"/{ON_PATH}")
        for file in sorted(path for path in copy.rglob("*") if path.is_file()):
            yield Entry.file(f"{ON_PATH}/{file.relative_to(copy).as_posix()}", file.read_bytes())


def library(name: str) -> Path:
    """The package's folder on this host."""
    found = importlib.util.find_spec(name)
    assert found is not None, f"{name} is a dependency of this package"
    assert found.origin is not None
    return Path(found.origin).parent


def fingerprint() -> str:
    """Changes with every version, and with what is left out."""
    return " ".join((*(f"{name} {importlib.metadata.version(name)}" for name in LIBRARIES), *DROPPED))
