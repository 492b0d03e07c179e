"""Packages from the mirror into the cache: which ones, once, and from private copies of the host's sources."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from sidecar.qemu.linux import apt as apt_module
from sidecar.qemu.linux.apt import Apt, AptFailed, Package, backports_entry, parse_package
from sidecar.qemu.linux.store import Store
from tests.unit.linux.fake_apt import FakeArchive

pytestmark = pytest.mark.needs("dpkg-deb")

STANZAS = """\
Types: deb
URIs: http://mirror.example/security
Suites: bookworm-security
Components: main

# a remark
Types: deb deb-src
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main contrib
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 a key
"""


@pytest.fixture
def lines() -> list[str]:
    return []


@pytest.fixture
def make_store(archive: FakeArchive, tmp_path: Path, lines: list[str]) -> Callable[[], Store]:
    cache = tmp_path / "cache"
    cache.mkdir()
    return lambda: Store(
        cache, tell=lines.append, make_apt=lambda root, tell: Apt(root, tell=tell, sources=archive.host)
    )


def choose(*names: str) -> Callable[[Apt], Sequence[Package]]:
    return lambda apt: [apt.candidate(name) for name in names]


def test_a_set_is_fetched_once(
    archive: FakeArchive, make_store: Callable[[], Store], lines: list[str], tmp_path: Path
) -> None:
    archive.add("tool", version="2:1.5-1", tool="a tool")
    archive.add("library", library="a library")
    tree = make_store().get("set", choose("tool", "library"))
    assert tree.versions == {"library": "1-1", "tool": "2:1.5-1"}
    assert (tree.root / "usr" / "tool").read_text() == "a tool"
    assert (tree.root / "usr" / "library").read_text() == "a library"
    assert lines == ["reading the package lists", "fetching library 1-1", "fetching tool 2:1.5-1"]
    asked = len(archive.calls)
    again = make_store().get("set", choose("tool", "library"))
    assert again == tree
    assert len(archive.calls) == asked, "the second time nobody asks apt"
    assert not list((tmp_path / "cache").rglob(".*")), "nothing is left over"


def test_a_tree_that_was_removed_is_fetched_again(archive: FakeArchive, make_store: Callable[[], Store]) -> None:
    archive.add("tool", tool="a tool")
    tree = make_store().get("set", choose("tool"))
    for file in (tree.root / "usr").iterdir():
        file.unlink()
    (tree.root / "usr").rmdir()
    tree.root.rmdir()
    assert (make_store().get("set", choose("tool")).root / "usr" / "tool").is_file()


def test_what_fails_leaves_nothing(archive: FakeArchive, make_store: Callable[[], Store], tmp_path: Path) -> None:
    archive.add("tool", tool="a tool")
    with pytest.raises(AptFailed, match="this host has no package library in bookworm: E: No packages found"):
        make_store().get("set", choose("tool", "library"))
    next((archive.root / "archive").iterdir()).unlink()
    with pytest.raises(AptFailed, match="apt cannot download tool=1-1: E: Can't find tool"):
        make_store().get("set", choose("tool"))
    left = [path.name for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert sorted(left) == ["debian.sources", "lock", "read"]


def test_a_damaged_package(archive: FakeArchive, make_store: Callable[[], Store]) -> None:
    archive.add("tool")
    next((archive.root / "archive").iterdir()).write_bytes(b"!<arch>\n")
    with pytest.raises(AptFailed, match=r"tool_1-1_all\.deb cannot be unpacked: "):
        make_store().get("set", choose("tool"))


def test_finish_completes_the_tree(archive: FakeArchive, make_store: Callable[[], Store]) -> None:
    archive.add("tool")
    tree = make_store().get("set", choose("tool"), lambda root: (root / "more").mkdir())
    assert (tree.root / "more").is_dir()


def test_apt_works_on_private_copies(archive: FakeArchive, tmp_path: Path) -> None:
    archive.add("tool")
    Apt(tmp_path / "apt", sources=archive.host).candidate("tool")
    assert len(archive.calls) == 2
    for call in archive.calls:
        for name, folder in (("Etc::sourceparts", "sources"), ("State::lists", "lists"), ("Cache", "cache")):
            assert f"-o Dir::{name}={tmp_path / 'apt' / folder}" in call


def test_lists_are_read_again_only_after_a_while(
    archive: FakeArchive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive.add("tool")
    archive.add("tool", release="backports")

    def updates(*, backports: bool) -> int:
        Apt(tmp_path / "apt", sources=archive.host).candidate("tool", backports=backports)
        return sum(call.endswith("update") for call in archive.calls)

    assert [updates(backports=wanted) for wanted in (False, False, True, True)] == [1, 1, 2, 2]
    monkeypatch.setattr(apt_module, "FRESH_SECONDS", 0)
    assert updates(backports=False) == 3


def test_backports_come_from_the_same_mirror(archive: FakeArchive, tmp_path: Path) -> None:
    archive.add("tool")
    archive.add("kernel", version="6.12", release="backports")
    apt = Apt(tmp_path / "apt", sources=archive.host)
    assert apt.candidate("tool").version == "1-1"
    assert not list((tmp_path / "apt" / "sources").glob("zz-*"))
    assert apt.candidate("kernel", backports=True).version == "6.12"
    text = (tmp_path / "apt" / "sources" / "zz-backports.sources").read_text()
    assert "Types: deb\nURIs: http://mirror.example/debian\nSuites: bookworm-backports\nComponents: main\n" in text
    assert "Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg" in text
    with pytest.raises(AptFailed, match="no package other in bookworm-backports"):
        apt.candidate("other", backports=True)


def test_a_list_that_cannot_be_read(
    archive: FakeArchive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UPDATE_STATUS", "100")
    with pytest.raises(AptFailed, match="apt cannot read the package lists: no reason given"):
        Apt(tmp_path / "apt", sources=archive.host).candidate("tool")


def test_a_host_without_apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(AptFailed, match="this host has no apt-get to fetch Debian packages with: give --kernel PATH"):
        Apt(tmp_path / "apt").candidate("tool")


def test_a_host_without_a_release(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.freedesktop_os_release", dict)
    with pytest.raises(AptFailed, match="does not name its release"):
        apt_module.release()


def test_an_entry_of_a_sources_file() -> None:
    text = backports_entry(STANZAS, 2, "bookworm", stanzas=True)
    expected = STANZAS.split("\n\n")[1].replace("deb deb-src", "deb").replace(" contrib", "")
    assert text == expected.replace("bookworm bookworm-updates", "bookworm-backports").rstrip() + "\n"


def test_an_entry_of_a_list_file() -> None:
    text = "# mirrors\ndeb [signed-by=/k.gpg arch=amd64] http://mirror.example/debian bookworm main contrib\n"
    expected = "deb [signed-by=/k.gpg arch=amd64] http://mirror.example/debian bookworm-backports main\n"
    assert backports_entry(text, 2, "bookworm", stanzas=False) == expected
    with pytest.raises(AptFailed, match="line 1 of the apt sources is no deb entry: '# mirrors'"):
        backports_entry(text, 1, "bookworm", stanzas=False)


def test_a_stanza() -> None:
    text = (
        "Package: kmod\nVersion: 30-1\nPre-Depends: libc6 (>= 2.34)\nDescription: tools\n Depends: not this\n"
        "Depends: liblzma5 (>= 5.1), media-types | mime-support, python3:any\n\nPackage: kmod\nVersion: 29-1\n"
    )
    assert parse_package(text) == Package("kmod", "30-1", ("libc6", "liblzma5", "media-types", "python3"))
    assert Package("a", "1:2").key == "a_1%3a2"
