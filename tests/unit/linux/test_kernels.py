"""Which packages make a kernel, where its parts are, and the user's own."""

import struct
from pathlib import Path

import pytest

from sidecar.qemu.linux.apt import Apt, AptFailed
from sidecar.qemu.linux.kernels import (
    BadKernel,
    choose_packages,
    image_version,
    kernel_package,
    own_kernel,
    relocate_headers,
)
from sidecar.qemu.linux.store import Store
from tests.unit.linux.fake_apt import FakeArchive

FLAVOUR = "6.1.0-56-cloud-amd64"


def bzimage(version: bytes = b"6.1.0-56-cloud-amd64 (somebody@example.org) #1 SMP") -> bytes:
    data = bytearray(0x1000)
    struct.pack_into("<H4s", data, 0x1FE, 0xAA55, b"\0\0Hd")
    data[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", data, 0x20E, 0x400)
    data[0x600 : 0x600 + len(version)] = version
    return bytes(data)


def add_kernel(archive: FakeArchive, *, suffix: str = "") -> None:
    archive.add("linux-image-cloud-amd64", depends=f"linux-image-{FLAVOUR}{suffix} (= 1-1)")
    archive.add(f"linux-image-{FLAVOUR}{suffix}", depends="kmod, linux-base | other")
    headers = f"linux-headers-6.1.0-56-common (= 1-1), linux-kbuild-6.1, linux-image-{FLAVOUR}, gcc-12"
    archive.add(f"linux-headers-{FLAVOUR}", depends=headers)
    archive.add("linux-headers-6.1.0-56-common")
    archive.add("linux-kbuild-6.1")


@pytest.mark.needs("dpkg-deb")
@pytest.mark.parametrize("suffix", ["", "-unsigned"])
def test_the_packages_of_a_kernel(archive: FakeArchive, tmp_path: Path, suffix: str) -> None:
    add_kernel(archive, suffix=suffix)
    packages = choose_packages(Apt(tmp_path / "apt", sources=archive.host), "stable")
    assert [package.name for package in packages] == [
        f"linux-image-{FLAVOUR}{suffix}",
        f"linux-headers-{FLAVOUR}",
        "linux-headers-6.1.0-56-common",
        "linux-kbuild-6.1",
    ]


@pytest.mark.needs("dpkg-deb")
def test_a_kernel_that_is_split(archive: FakeArchive, tmp_path: Path) -> None:
    add_kernel(archive)
    parts = f"linux-base-{FLAVOUR}, linux-binary-{FLAVOUR} (= 1-1), linux-modules-{FLAVOUR}"
    archive.add("linux-image-cloud-amd64", depends=f"linux-base-cloud, linux-image-{FLAVOUR}", release="backports")
    archive.add(f"linux-image-{FLAVOUR}", depends=parts, release="backports")
    for name in (f"linux-headers-{FLAVOUR}", f"linux-binary-{FLAVOUR}", f"linux-modules-{FLAVOUR}"):
        archive.add(name, release="backports")
    names = [package.name for package in choose_packages(Apt(tmp_path / "apt", sources=archive.host), "backports")]
    assert names[2:] == [f"linux-binary-{FLAVOUR}", f"linux-modules-{FLAVOUR}"]


@pytest.mark.needs("dpkg-deb")
def test_a_meta_package_without_a_kernel(archive: FakeArchive, tmp_path: Path) -> None:
    archive.add("linux-image-cloud-amd64", depends="kmod")
    with pytest.raises(AptFailed, match="linux-image-cloud-amd64 1-1 depends on no kernel, but on: kmod"):
        choose_packages(Apt(tmp_path / "apt", sources=archive.host), "stable")


@pytest.mark.needs("dpkg-deb")
@pytest.mark.parametrize("above", ["", "usr/"])
def test_where_the_parts_are(
    archive: FakeArchive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, above: str
) -> None:
    add_kernel(archive)
    monkeypatch.setattr("sidecar.qemu.linux.kernels.release", lambda: "bookworm")
    store = Store(tmp_path, make_apt=lambda root, tell: Apt(root, sources=archive.host))
    image = f"boot/vmlinuz-{FLAVOUR}" if not above else f"usr/lib/modules/{FLAVOUR}/vmlinuz"

    def fill(tree: Path) -> None:
        for name in (image, f"{above}lib/modules/{FLAVOUR}/kernel/x", f"usr/src/linux-headers-{FLAVOUR}/.config"):
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            (tree / name).write_bytes(bzimage())

    monkeypatch.setattr("sidecar.qemu.linux.kernels.complete", fill)
    kernel = kernel_package("stable", store=store)
    tree = next((tmp_path / "trees").iterdir())
    assert kernel.version == FLAVOUR
    assert kernel.image == tree / image
    assert kernel.modules == tree / f"{above}lib/modules/{FLAVOUR}"
    assert kernel.headers == tree / f"usr/src/linux-headers-{FLAVOUR}"
    assert kernel.config == tree / f"usr/src/linux-headers-{FLAVOUR}" / ".config"


@pytest.mark.needs("dpkg-deb")
def test_packages_without_a_kernel_are_not_kept(
    archive: FakeArchive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_kernel(archive)
    monkeypatch.setattr("sidecar.qemu.linux.kernels.release", lambda: "bookworm")
    store = Store(tmp_path, make_apt=lambda root, tell: Apt(root, sources=archive.host))
    with pytest.raises(AptFailed, match="Debian's kernel packages have changed: none of boot/vmlinuz-"):
        kernel_package("stable", store=store)
    assert list((tmp_path / "trees").iterdir()) == []


def test_headers_find_their_common_part_beside_them(tmp_path: Path) -> None:
    old = "KBUILD_OUTPUT=/usr/src/linux-headers-x-cloud\ninclude /usr/src/linux-headers-x-common/Makefile\n"
    for name, text in (("x-cloud", old), ("x-common", "all:\n")):
        (tmp_path / f"usr/src/linux-headers-{name}").mkdir(parents=True)
        (tmp_path / f"usr/src/linux-headers-{name}/Makefile").write_text(text)
    relocate_headers(tmp_path)
    assert (tmp_path / "usr/src/linux-headers-x-cloud/Makefile").read_text() == (
        "KBUILD_OUTPUT:=$(abspath $(dir $(lastword $(MAKEFILE_LIST)))..)/linux-headers-x-cloud\n"
        "include $(abspath $(dir $(lastword $(MAKEFILE_LIST)))..)/linux-headers-x-common/Makefile\n"
    )
    assert (tmp_path / "usr/src/linux-headers-x-common/Makefile").read_text() == "all:\n"


def test_a_kernel_of_the_user(tmp_path: Path) -> None:
    image, headers = tmp_path / "bzImage", tmp_path / "build"
    image.write_bytes(bzimage())
    headers.mkdir()
    assert own_kernel(image).version == FLAVOUR
    with pytest.raises(BadKernel, match="there is no Makefile in it, so no module can be built against it"):
        own_kernel(image, headers=headers)
    (headers / "Makefile").touch()
    assert own_kernel(image, headers=headers).headers == headers


@pytest.mark.parametrize("folder", ["lib/modules", "usr/lib/modules"])
def test_the_modules_of_an_own_kernel_are_where_its_package_has_them(tmp_path: Path, folder: str) -> None:
    image, modules = tmp_path / "boot" / f"vmlinuz-{FLAVOUR}", tmp_path / folder / FLAVOUR
    for directory in (image.parent, modules / "kernel"):
        directory.mkdir(parents=True)
    image.write_bytes(bzimage())
    assert own_kernel(image).modules == modules


def test_files_that_are_no_kernel(tmp_path: Path) -> None:
    file = tmp_path / "file"
    with pytest.raises(BadKernel, match=r"--kernel .*file: No such file or directory"):
        image_version(file)
    file.write_bytes(b"\x7fELF")
    with pytest.raises(BadKernel, match=r"not a bzImage: expected b'U\\xaa' at 0x1fe"):
        image_version(file)
    file.write_bytes(bzimage(b""))
    with pytest.raises(BadKernel, match="its header names no version"):
        image_version(file)
