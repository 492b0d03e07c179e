"""What this source tree puts into the guest: /init, the agent, the program `stamp`, and the Python packages.

The packages are those the client needs (`sidecar.layout`, `.protocol`, `.client`), compiled by the guest's Python and
on its path, so that `python3 -m sidecar.client` works there. `sidecarctl` is a short name for that. What they import
beside the standard library comes from `libraries`.
"""

import hashlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from sidecar import errors
from sidecar.qemu.linux.cpio import Entry
from sidecar.qemu.linux.libraries import ON_PATH
from sidecar.qemu.linux.python import compile_python
from sidecar.qemu.linux.stamp import stamp_program

GUEST = Path(__file__).resolve().parent / "guest"
PACKAGE = Path(errors.__file__).parent
PARTS = ("__init__.py", "errors.py", "layout", "protocol", "client")

FOLDERS = ("proc", "sys", "dev", "tmp", "run", "root", "mnt", "var", "var/run", "var/log", "etc")

SIDECARCTL = """\
#!/bin/sh
exec python3 -m sidecar.client "$@"
"""
PASSWD = "root:x:0:0:root:/root:/bin/sh\n"
GROUP = "root:x:0:\n"
PROFILE = "export PATH=/usr/sbin:/usr/bin PS1='sidecar:\\w# '\n"


def own_entries(root: Path) -> Iterator[Entry]:
    """The entries; `root` has the guest's Python."""
    yield from (Entry.directory(name) for name in FOLDERS)
    yield Entry.character_device("dev/console", 5, 1)
    yield Entry.character_device("dev/null", 1, 3, 0o666)
    yield Entry.file("init", (GUEST / "init.sh").read_bytes(), executable=True)
    yield Entry.file("usr/lib/sidecar/agent.py", (GUEST / "agent.py").read_bytes())
    yield Entry.file("usr/bin/stamp", stamp_program(), executable=True)
    yield Entry.file("usr/bin/sidecarctl", SIDECARCTL.encode(), executable=True)
    yield Entry.file("etc/passwd", PASSWD.encode())
    yield Entry.file("etc/group", GROUP.encode())
    yield Entry.file("etc/profile", PROFILE.encode())
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch)
        for file, name in sources():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy / name)
        compile_python(root, copy, prefix=f"/{ON_PATH}")
        for file in sorted(path for path in copy.rglob("*") if path.is_file()):
            yield Entry.file(f"{ON_PATH}/{file.relative_to(copy).as_posix()}", file.read_bytes())


def sources() -> Iterator[tuple[Path, str]]:
    """Every file of the packages, and its name below the guest's path."""
    for part in PARTS:
        yield from _files(PACKAGE / part, f"sidecar/{part}")


def fingerprint() -> str:
    """Changes with every one of these files."""
    digest = hashlib.sha256("\n".join((SIDECARCTL, PASSWD, GROUP, PROFILE, *FOLDERS)).encode())
    for file, name in (*sources(), *_files(GUEST, "guest")):
        digest.update(f"\n{name}\n".encode() + file.read_bytes())
    digest.update(stamp_program())
    return digest.hexdigest()


def _files(path: Path, name: str) -> Iterator[tuple[Path, str]]:
    if path.is_file():
        yield path, name
    elif path.is_dir():
        for file in sorted(path.resolve().rglob("*")):
            if file.is_file() and "__pycache__" not in file.parts:
                yield file, f"{name}/{file.relative_to(path.resolve()).as_posix()}"
