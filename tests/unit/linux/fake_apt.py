"""An archive of packages in a folder, with programs `apt-get` and `apt-cache` that serve it."""

import subprocess
from pathlib import Path

import pytest

APT_GET = """\
#!/bin/bash
echo "apt-get $*" >>"$FAKE/log"
while [ "$1" = -o ]; do shift 2; done
case $* in
*update) exit "${UPDATE_STATUS:-0}" ;;
indextargets*) echo "$FAKE/host/debian.sources:1" ;;
*download*)
    name=${3%%=*}
    cp "$FAKE/archive/$name"_*.deb . || { echo "E: Can't find $name" >&2; exit 100; } ;;
esac
"""
APT_CACHE = """\
#!/bin/bash
echo "apt-cache $*" >>"$FAKE/log"
stanzas=stable
case $* in *-backports*) stanzas=backports ;; esac
cat "$FAKE/$stanzas/${@: -1}" 2>/dev/null || { echo "E: No packages found" >&2; exit 100; }
"""
SOURCES = """\
Types: deb deb-src
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
"""


class FakeArchive:
    """What a mirror has; `calls` are those to the programs."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self.host = root, root / "host"
        for name in ("bin", "host", "archive", "stable", "backports"):
            (root / name).mkdir()
        (self.host / "debian.sources").write_text(SOURCES)
        for name, text in (("apt-get", APT_GET), ("apt-cache", APT_CACHE)):
            (root / "bin" / name).write_text(text)
            (root / "bin" / name).chmod(0o755)
        monkeypatch.setenv("FAKE", str(root))
        monkeypatch.setenv("PATH", f"{root / 'bin'}:/usr/sbin:/usr/bin:/sbin:/bin")
        monkeypatch.setattr("sidecar.qemu.linux.apt.release", lambda: "bookworm")

    def add(self, name: str, *, version: str = "1-1", depends: str = "", release: str = "stable", **files: str) -> None:
        """A package; the names of `files` have _ for / and . where it is easier to write."""
        stanza = f"Package: {name}\nVersion: {version}\n" + (f"Depends: {depends}\n" if depends else "")
        (self.root / release / name).write_text(f"{stanza}Description: a package\n of a test\n\n")
        tree = self.root / "tree" / name
        (tree / "DEBIAN").mkdir(parents=True, exist_ok=True)
        control = f"{stanza}Architecture: all\nMaintainer: nobody <nobody@example.org>\nDescription: a package\n"
        (tree / "DEBIAN" / "control").write_text(control)
        for file, text in files.items():
            path = tree / "usr" / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        target = self.root / "archive" / f"{name}_{version.replace(':', '%3a')}_all.deb"
        subprocess.run(["dpkg-deb", "--build", "--root-owner-group", tree, target], check=True, capture_output=True)

    @property
    def calls(self) -> list[str]:
        log = self.root / "log"
        return log.read_text().splitlines() if log.exists() else []
