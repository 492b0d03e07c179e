"""Where fetched and derived files are kept between runs, and how they get there: whole, and by one process at a time.

    .cache/ in the project          when the package runs from its source tree
    ~/.cache/sidecar                when it is installed
    $SIDECAR_CACHE                  if set

Everything in it can be deleted at any time; it is fetched or made again.
"""

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

OVERRIDE = "SIDECAR_CACHE"

Tell = Callable[[str], None]
"""Takes one line of progress."""


def silent(line: str) -> None:
    """Progress that nobody wants to see."""


def project_root() -> Path | None:
    """The source tree this module stands in; None for an installed package."""
    root = Path(__file__).resolve().parents[2]
    return root if (root / "pyproject.toml").is_file() else None


def cache_root() -> Path:
    """The cache's directory, made if it is not there."""
    named, project = os.environ.get(OVERRIDE), project_root()
    root = Path(named) if named else project / ".cache" if project else Path.home() / ".cache" / "sidecar"
    root.mkdir(parents=True, exist_ok=True)
    return root.resolve()


@contextlib.contextmanager
def locked(lock: Path, tell: Tell = silent) -> Iterator[None]:
    """Keeps every other process out of what `lock`, a file of no content, stands for; its end frees it."""
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            tell(f"waiting for another process that has {lock}")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def new_directory(target: Path) -> Iterator[Path]:
    """A directory to fill, which becomes `target` when the block ends well and is removed when it does not."""
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=".new-", dir=target.parent))
    try:
        scratch.chmod(0o755)
        yield scratch
        shutil.rmtree(target, ignore_errors=True)
        scratch.rename(target)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise


def write_whole(target: Path, data: bytes) -> Path:
    """Writes a file so that nobody ever sees a part of it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, scratch = tempfile.mkstemp(prefix=".new-", dir=target.parent)
    with os.fdopen(handle, "wb") as file:
        file.write(data)
    os.chmod(scratch, 0o644)
    Path(scratch).rename(target)
    return target
