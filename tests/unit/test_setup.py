"""tools/setup, run on a host made of a few programs: what it asks apt for, and that apt is left alone otherwise."""

import platform
import shutil
import subprocess
from pathlib import Path

import pytest

SETUP = Path(__file__).resolve().parents[2] / "tools" / "setup"
RELEASE = platform.freedesktop_os_release().get("VERSION_CODENAME", "")
TOOLS = (
    *(
        "awk",
        "basename",
        "bash",
        "cat",
        "chmod",
        "cp",
        "dirname",
        "dpkg",
        "env",
        "grep",
        "head",
        "id",
        "mkdir",
        "mktemp",
    ),
    *("mv", "rm", "sed", "sort"),
)
NEEDED = (
    *("python3", "qemu-system-x86_64", "as", "readelf", "eu-elflint", "grub-file"),
    *("gcc", "make", "sparse", "spin", "cpio", "git"),
)

STANZAS = """\
Types: deb
URIs: http://mirror.example/security
Suites: {release}-security
Components: main

Types: deb deb-src
# a remark
URIs: http://mirror.example/debian
Suites: {release} {release}-updates
Components: main contrib
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 a key
"""
LINES = """\
deb http://mirror.example/security {release}-security main
deb [signed-by=/usr/share/keyrings/debian.gpg arch=amd64] http://mirror.example/debian {release} main contrib
"""
APT_GET = """\
#!/bin/bash
echo "apt-get $*" >>"$FAKE/log"
case $* in
*indextargets*) echo "http://mirror.example/debian/|$FAKE/$ENTRY:2" ;;
*"install qemu-system-x86"*)
    sources=${2#*=}
    cp "$sources"/zz-backports.* "$FAKE"
    printf '#!/bin/sh\\necho QEMU emulator version 10.0.2\\n' >"$FAKE/bin/qemu-system-x86_64"
    chmod +x "$FAKE/bin/qemu-system-x86_64" ;;
esac
"""


class Host:
    """A host whose PATH is one folder: links to the tools of a minimal Debian, and programs of ours."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.bin = root / "bin"
        self.bin.mkdir()
        for tool in TOOLS:
            self.link(tool)
        self.program("sudo", '#!/bin/bash\nexec "$@"\n')
        self.program("apt-get", APT_GET)
        self.program("apt-cache", "#!/bin/bash\necho '  Candidate: 1:7.2+dfsg-7'\n")

    def link(self, name: str) -> None:
        path = shutil.which(name)
        assert path is not None, f"this host has no {name}"
        self.bin.joinpath(name).symlink_to(path)

    def program(self, name: str, text: str) -> None:
        path = self.bin / name
        path.write_text(text)
        path.chmod(0o755)

    def set_up(self, entry: str = "") -> subprocess.CompletedProcess[str]:
        environment = {"PATH": str(self.bin), "FAKE": str(self.root), "ENTRY": entry, "TMPDIR": str(self.root)}
        command = [str(self.bin / "bash"), str(SETUP), "system"]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)

    @property
    def apt_calls(self) -> str:
        log = self.root / "log"
        return log.read_text() if log.exists() else ""


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """A host that has everything but QEMU."""
    host = Host(tmp_path)
    for name in NEEDED:
        host.program(name, "#!/bin/sh\nexit 0\n")
    host.bin.joinpath("qemu-system-x86_64").unlink()
    return host


def qemu(host: Host, version: str) -> None:
    host.program("qemu-system-x86_64", f"#!/bin/sh\necho 'QEMU emulator version {version} (Debian)'\n")


@pytest.mark.needs("dpkg")
def test_apt_is_not_called_when_nothing_is_missing(host: Host) -> None:
    qemu(host, "9.0.0")
    run = host.set_up()
    assert (run.returncode, run.stdout) == (0, "setup: system packages are there (QEMU 9.0.0)\n")
    assert host.apt_calls == ""


@pytest.mark.needs("dpkg")
@pytest.mark.parametrize("version", [None, "7.2.18", "8.2.10"])
@pytest.mark.parametrize(("entry", "text"), [("debian.sources", STANZAS), ("sources.list", LINES)])
def test_qemu_comes_from_the_mirror_of_the_host(host: Host, version: str | None, entry: str, text: str) -> None:
    (host.root / entry).write_text(text.format(release=RELEASE))
    if version is not None:
        qemu(host, version)
    run = host.set_up(entry)
    assert run.returncode == 0, run.stderr
    assert f"setup: backports: from the mirror of {entry}, entry 2\n" in run.stdout
    assert run.stdout.endswith("setup: system packages are there (QEMU 10.0.2)\n")
    if entry.endswith(".sources"):
        stanza = STANZAS.split("\n\n")[1].replace("deb deb-src", "deb").replace(" contrib", "")
        expected = stanza.replace("{release} {release}-updates", f"{RELEASE}-backports").rstrip()
    else:
        expected = LINES.splitlines()[1].replace("{release} main contrib", f"{RELEASE}-backports main")
    assert (host.root / f"zz-backports.{entry.rpartition('.')[2]}").read_text().rstrip() == expected
    assert (host.root / entry).read_text() == text.format(release=RELEASE)


@pytest.mark.needs("dpkg")
def test_every_apt_call_works_on_private_copies(host: Host) -> None:
    (host.root / "sources.list").write_text(LINES.format(release=RELEASE))
    host.set_up("sources.list")
    calls = host.apt_calls.splitlines()
    assert len(calls) == 4
    for call in calls:
        assert f"-o Dir::Etc::sourceparts={host.root}/tmp." in call
        assert f"-o Dir::State::lists={host.root}/tmp." in call
    assert [path.name for path in host.root.glob("tmp.*")] == [], "the private directory is left behind"


@pytest.mark.needs("dpkg")
def test_no_entry_for_the_release(host: Host) -> None:
    host.program("apt-get", "#!/bin/bash\nexit 0\n")
    run = host.set_up()
    assert run.returncode == 2
    assert run.stderr == (
        f"setup: the apt sources of this host have no entry for {RELEASE} main, "
        "so no mirror to take the backports from\n"
    )


def test_a_host_without_apt(host: Host) -> None:
    host.bin.joinpath("apt-get").unlink()
    host.bin.joinpath("eu-elflint").unlink()
    run = host.set_up()
    assert run.returncode == 2
    assert run.stderr == (
        "setup: missing: qemu-system-x86 elfutils (QEMU at least 9.0); this script can install them on Debian only\n"
    )


@pytest.mark.needs("dpkg")
def test_root_needs_no_sudo(host: Host) -> None:
    host.bin.joinpath("sudo").unlink()
    host.bin.joinpath("id").unlink()
    host.program("id", "#!/bin/bash\necho 0\n")
    (host.root / "sources.list").write_text(LINES.format(release=RELEASE))
    assert host.set_up("sources.list").returncode == 0


def test_without_root_and_sudo(host: Host) -> None:
    host.bin.joinpath("sudo").unlink()
    host.bin.joinpath("id").unlink()
    host.program("id", "#!/bin/bash\necho 1000\n")
    run = host.set_up()
    assert run.returncode == 2
    assert run.stderr == (
        "setup: missing: qemu-system-x86; to install them needs root, and there is no sudo: run this as root once\n"
    )


def test_an_unknown_argument() -> None:
    run = subprocess.run([SETUP, "everything"], capture_output=True, text=True, timeout=20, check=False)
    assert (run.returncode, run.stderr) == (
        2,
        "setup: unknown argument 'everything'; use: tools/setup [system|venv]\n",
    )
