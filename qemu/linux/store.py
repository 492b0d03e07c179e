"""Sets of Debian packages, unpacked into one tree each and kept: fetched once, then found without network or apt.

    trees = Store(cache_root())
    tree = trees.get("guest-bookworm", choose)      # choose(apt) -> the packages, asked only if the tree is not there

    .cache/sets/guest-bookworm.json                 which tree, and the packages in it
    .cache/trees/guest-bookworm_<hash of the packages' names and versions>/

Nothing is installed: `dpkg-deb -x` unpacks, and no package script runs.
"""

import hashlib
import json
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sidecar.qemu.linux.apt import Apt, AptFailed, Package, last_line
from sidecar.qemu.linux.cache import Tell, locked, new_directory, silent, write_whole

UNPACK_SECONDS = 300

Choose = Callable[[Apt], Sequence[Package]]
Finish = Callable[[Path], None]


@dataclass(frozen=True, slots=True)
class Tree:
    """An unpacked set: where it is, a key that names its content, and the packages by name."""

    root: Path
    key: str
    versions: dict[str, str]


class Store:
    """The sets below a cache's root. `make_apt` gives the apt that fetches."""

    def __init__(self, root: Path, *, tell: Tell = silent, make_apt: Callable[[Path, Tell], Apt] | None = None) -> None:
        self._root, self._tell = root, tell
        self._make_apt = make_apt or (lambda where, said: Apt(where, tell=said))
        self._apt: Apt | None = None

    def get(self, name: str, choose: Choose, finish: Finish = lambda tree: None) -> Tree:
        """The set `name`. If it is not there, `choose` says what is in it and `finish` completes the tree.

        Raises AptFailed.
        """
        known = self._known(name)
        if known is not None:
            return known
        with locked(self._root / "lock", self._tell):
            return self._known(name) or self._make(name, choose, finish)

    def _known(self, name: str) -> Tree | None:
        try:
            noted: dict[str, Any] = json.loads(self._note(name).read_text())
            tree = Tree(self._root / "trees" / noted["key"], noted["key"], noted["packages"])
        except (OSError, ValueError, KeyError):
            return None
        return tree if tree.root.is_dir() else None

    def _make(self, name: str, choose: Choose, finish: Finish) -> Tree:
        if self._apt is None:
            self._apt = self._make_apt(self._root / "apt", self._tell)
        packages = sorted(choose(self._apt), key=lambda package: package.name)
        versions = {package.name: package.version for package in packages}
        key = f"{name}_{hashlib.sha256(repr(packages).encode()).hexdigest()[:12]}"
        with (
            new_directory(self._root / "trees" / key) as tree,
            tempfile.TemporaryDirectory(prefix=".debs-", dir=self._root) as files,
        ):
            for package in packages:
                unpack(self._apt.download(package, Path(files)), tree)
            finish(tree)
        write_whole(self._note(name), json.dumps({"key": key, "packages": versions}, indent=2).encode())
        return Tree(self._root / "trees" / key, key, versions)

    def _note(self, name: str) -> Path:
        return self._root / "sets" / f"{name}.json"


def unpack(file: Path, tree: Path) -> None:
    """The files of a .deb below `tree`; the .deb is removed. Raises AptFailed."""
    run = subprocess.run(
        ["dpkg-deb", "--extract", file, tree], capture_output=True, text=True, timeout=UNPACK_SECONDS, check=False
    )
    if run.returncode != 0:
        raise AptFailed(f"{file.name} cannot be unpacked: {last_line(run.stderr)}")
    file.unlink()
