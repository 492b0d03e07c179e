"""The guest's programs: busybox, kmod and Python of the host's release, from packages, never from the host.

    tree = guest_root()           a Tree, fetched once
    guest_entries(tree)           its files as archive entries, without what this guest has no use for
"""

import fnmatch
import os
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from sidecar.qemu.linux.apt import Apt, Package, release
from sidecar.qemu.linux.cache import Tell, cache_root, silent
from sidecar.qemu.linux.cpio import Entry
from sidecar.qemu.linux.python import compiled_library, python_library
from sidecar.qemu.linux.store import Store, Tree

WANTED: tuple[str, ...] = ("busybox-static", "kmod", "python3-minimal", "libpython3-stdlib")

# What those depend on, and a guest without network, terminal libraries and package management does without.
NOT_WANTED: tuple[str, ...] = (
    "debconf", "dpkg", "gcc-*-base", "libdb5*", "libncursesw*", "libnsl*", "libreadline*", "libsqlite*", "libtinfo*",
    "libtirpc*", "media-types", "mime-support", "netbase", "openssl-provider-*", "readline-common", "tzdata",
)  # fmt: skip

DROPPED = (
    "etc/*", "var/*", "usr/share/*", "usr/lib/init/*", "usr/lib/modprobe.d/*", "usr/lib/systemd/*",
    "usr/lib/x86_64-linux-gnu/gconv/*", "usr/lib/x86_64-linux-gnu/audit/*", "usr/lib/x86_64-linux-gnu/engines*",
    "usr/lib/x86_64-linux-gnu/ossl-modules/*", "usr/lib/x86_64-linux-gnu/libssl.*", "usr/lib/x86_64-linux-gnu/libnss_*",
    "usr/lib/x86_64-linux-gnu/libmvec.*", "usr/lib/x86_64-linux-gnu/libexpatw.*", "usr/lib/x86_64-linux-gnu/libnsl.*",
    "usr/lib/x86_64-linux-gnu/libc_malloc_debug.*", "usr/lib/x86_64-linux-gnu/libmemusage.*",
    "usr/lib/x86_64-linux-gnu/libthread_db.*", "usr/lib/x86_64-linux-gnu/libpcprofile.*",
    "usr/lib/x86_64-linux-gnu/perl5/*", "usr/lib/locale/*", "usr/bin/py3*", "usr/bin/pyc*", "usr/bin/pyd*",
    "usr/lib/python3/*", "*/config-3.*", "*/__pycache__/*",
)  # fmt: skip

MERGED = ("bin", "sbin", "lib", "lib64")
"""Links into usr in the guest, as on every Debian since 12."""


def guest_root(*, tell: Tell = silent, store: Store | None = None) -> Tree:
    """The guest's packages, unpacked. Raises AptFailed."""
    store = store or Store(cache_root(), tell=tell)
    return store.get(f"guest-{release()}", choose_packages)


def choose_packages(apt: Apt) -> list[Package]:
    """What is wanted and what that needs, each once."""
    chosen: dict[str, Package] = {}
    asked = list(WANTED)
    while asked:
        name = asked.pop()
        if name not in chosen and not any(fnmatch.fnmatch(name, pattern) for pattern in NOT_WANTED):
            chosen[name] = apt.candidate(name)
            asked.extend(chosen[name].depends)
    return list(chosen.values())


def guest_entries(tree: Tree) -> Iterator[Entry]:
    """The guest's root file system: programs, libraries, Python's compiled library, and busybox's other names."""
    library = python_library(tree.root).relative_to(tree.root)
    names = set()
    for path in sorted(tree.root.rglob("*")):
        name = merged(path.relative_to(tree.root).as_posix())
        if not Path(name).is_relative_to(library) and not any(fnmatch.fnmatch(name, pattern) for pattern in DROPPED):
            names.add(path.name)
            yield from entry_of(path, name)
    yield from (Entry.link(folder, f"usr/{folder}") for folder in MERGED)
    yield from (Entry.link(f"usr/bin/{applet}", "busybox") for applet in applets(tree.root) if applet not in names)
    with tempfile.TemporaryDirectory() as scratch:
        copy = compiled_library(tree.root, Path(scratch))
        for path in sorted(copy.rglob("*")):
            yield from entry_of(path, f"{library.as_posix()}/{path.relative_to(copy).as_posix()}")


def merged(name: str) -> str:
    """Where a file of a package is on a system whose /bin, /sbin and /lib are links into /usr."""
    return f"usr/{name}" if name.partition("/")[0] in MERGED else name


def entry_of(path: Path, name: str) -> Iterator[Entry]:
    """A file or link of the host's as an entry; nothing for a directory."""
    mode = path.lstat().st_mode
    if stat.S_ISLNK(mode):
        yield Entry.link(name, os.readlink(path))
    elif stat.S_ISREG(mode):
        yield Entry.file(name, path.read_bytes(), executable=bool(mode & 0o100))


def applets(root: Path) -> list[str]:
    """Every name that busybox answers to."""
    program = next(path for path in (root / "usr/bin/busybox", root / "bin/busybox") if path.is_file())
    run = subprocess.run([program, "--list"], capture_output=True, text=True, timeout=60, check=True)
    return run.stdout.split()
