"""The host's mirror, asked without touching the host: apt on private copies of its sources and lists.

    apt = Apt(cache_root() / "apt")
    apt.candidate("kmod")                                  -> Package(name="kmod", version="30+...", depends=(...))
    apt.candidate("linux-image-cloud-amd64", backports=True)
    apt.download(package, directory)                       -> directory/kmod_30+..._amd64.deb, checked by apt

Needs no root. Mirror, keyring and pins are the host's own; the backports come from the host's entry for its release
with the suite exchanged, as in tools/setup. Lists are fetched again after ten minutes.

Ref: apt-get(8), apt-cache(8), sources.list(5); Debian Policy 7.1 (syntax of relationship fields).
"""

import platform
import re
import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sidecar.errors import UserError
from sidecar.qemu.linux.cache import Tell, silent

SOURCES = Path("/etc/apt/sources.list.d")
LISTS_SECONDS = 600
FRESH_SECONDS = 600
DOWNLOAD_SECONDS = 1800
ASK_SECONDS = 120


class AptFailed(UserError):
    """The host's apt cannot give us a package."""


@dataclass(frozen=True, slots=True)
class Package:
    """One version of a binary package. `depends` names what it needs, each by its first alternative."""

    name: str
    version: str
    depends: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """Name and version, as a file name."""
        return f"{self.name}_{self.version.replace(':', '%3a')}"


class Apt:
    """apt with its own sources, lists and cache below `root`."""

    def __init__(self, root: Path, *, tell: Tell = silent, sources: Path = SOURCES) -> None:
        self._root, self._tell, self._host_sources = root, tell, sources
        self._parts = root / "sources"
        self._ready = self._has_backports = False

    def candidate(self, name: str, *, backports: bool = False) -> Package:
        """What the release, or its backports, would install under that name. Raises AptFailed."""
        self._prepare(backports=backports)
        chosen = ("-o", f"APT::Default-Release={release()}-backports") if backports else ()
        shown = self._ask("apt-cache", *chosen, "show", "--no-all-versions", name)
        if shown.returncode != 0 or not shown.stdout.strip():
            where = f"{release()}-backports" if backports else release()
            raise AptFailed(f"the mirror of this host has no package {name} in {where}: {last_line(shown.stderr)}")
        return parse_package(shown.stdout)

    def download(self, package: Package, directory: Path) -> Path:
        """The package's file in `directory`; apt has checked it against the archive's signature. Raises AptFailed."""
        self._prepare(backports=False)
        self._tell(f"fetching {package.name} {package.version}")
        wanted = f"{package.name}={package.version}"
        run = self._ask("apt-get", "-qq", "download", wanted, seconds=DOWNLOAD_SECONDS, where=directory)
        files = sorted(directory.glob(f"{package.name}_*.deb"))
        if run.returncode != 0 or len(files) != 1:
            raise AptFailed(f"apt cannot download {wanted}: {last_line(run.stderr)}")
        return files[0]

    # --- private sources and lists -------------------------------------------------------------------------------

    def _prepare(self, *, backports: bool) -> None:
        if not self._ready:
            if shutil.which("apt-get") is None:
                raise AptFailed("this host has no apt-get to fetch Debian packages with: give --kernel PATH")
            self._copy_sources()
            self._update("reading the package lists", "read")
            self._ready = True
        if backports and not self._has_backports:
            self._add_backports()
            self._update(f"reading the package lists of {release()}-backports", "read-backports")
            self._has_backports = True

    def _copy_sources(self) -> None:
        shutil.rmtree(self._parts, ignore_errors=True)
        for folder in (self._parts, self._root / "lists" / "partial", self._root / "cache" / "archives" / "partial"):
            folder.mkdir(parents=True, exist_ok=True)
        for pattern in ("*.list", "*.sources"):
            for file in self._host_sources.glob(pattern):
                shutil.copy(file, self._parts)

    def _update(self, what: str, name: str) -> None:
        """Fetches the lists of all sources there are now, unless it was done a moment ago: file `name` says when."""
        stamp = self._root / name
        if stamp.exists() and time.time() - stamp.stat().st_mtime < FRESH_SECONDS:
            return
        self._tell(what)
        for old in self._root.glob("read*"):  # apt removes the lists that have no source now
            old.unlink()
        run = self._ask("apt-get", "-qq", "update", seconds=LISTS_SECONDS)
        if run.returncode != 0:
            raise AptFailed(f"apt cannot read the package lists: {last_line(run.stderr)}")
        for file in (self._root / "read", stamp):
            file.touch()

    def _add_backports(self) -> None:
        shown = self._ask(
            "apt-get", "indextargets", "--format", "$(SOURCESENTRY)",
            "Created-By: Packages", f"Release: {release()}", "Component: main",
        )  # fmt: skip
        entry = next(iter(shown.stdout.splitlines()), "")
        if not entry:
            raise AptFailed(f"the apt sources of this host have no entry for {release()} main to take a mirror from")
        file, _, number = entry.rpartition(":")
        text = backports_entry(Path(file).read_text(), int(number), release(), stanzas=file.endswith(".sources"))
        suffix = "sources" if file.endswith(".sources") else "list"
        (self._parts / f"zz-backports.{suffix}").write_text(text)

    def _ask(
        self, program: str, *arguments: str, seconds: float = ASK_SECONDS, where: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        command = [program, *self._private, *arguments]
        try:
            return subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds, check=False,
                cwd=where,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise AptFailed(f"{program} {arguments[0]} did not end within {seconds:g} s") from error

    @property
    def _private(self) -> Sequence[str]:
        """Options that keep apt off the host's own files. As root it would become _apt, who may not write here."""
        return (
            "-o", f"Dir::Etc::sourceparts={self._parts}",
            "-o", f"Dir::State::lists={self._root / 'lists'}",
            "-o", f"Dir::Cache={self._root / 'cache'}",
            "-o", "APT::Sandbox::User=root",
        )  # fmt: skip


def release() -> str:
    """The code name of the host's release, such as bookworm. Raises AptFailed."""
    name = platform.freedesktop_os_release().get("VERSION_CODENAME")
    if not name:
        raise AptFailed("this host does not name its release (VERSION_CODENAME in os-release): give --kernel PATH")
    return name


def parse_package(text: str) -> Package:
    """The package that the first stanza of `apt-cache show` describes."""
    fields = dict(re.findall(r"^([A-Z][\w-]*): (.*)$", text.split("\n\n", 1)[0], re.MULTILINE))
    relations = ", ".join(fields[name] for name in ("Pre-Depends", "Depends") if name in fields)
    names = (re.match(r"\s*([a-z0-9][a-z0-9.+-]*)", relation) for relation in relations.split(","))
    return Package(fields["Package"], fields["Version"], tuple(match.group(1) for match in names if match))


def backports_entry(text: str, number: int, codename: str, *, stanzas: bool) -> str:
    """Entry `number`, from 1, of a sources file with the backports as its suite: same mirror, same keyring."""
    if not stanzas:
        line = text.splitlines()[number - 1]
        head = re.match(r"\s*deb\s+(\[[^]]*\]\s+)?\S+", line)
        if head is None:
            raise AptFailed(f"line {number} of the apt sources is no deb entry: {line!r}")
        return f"{head.group()} {codename}-backports main\n"
    paragraphs = [part for part in re.split(r"\n\s*\n", text.strip("\n")) if part.strip()]
    entry = paragraphs[number - 1]
    for field, value in (("Types", "deb"), ("Suites", f"{codename}-backports"), ("Components", "main")):
        entry = re.sub(rf"^{field}:.*", f"{field}: {value}", entry, flags=re.MULTILINE)
    return entry + "\n"


def last_line(text: str) -> str:
    """What a program complained about last."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "no reason given")
