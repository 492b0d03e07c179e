"""Linux kernels to boot: Debian's own, by the names `stable` and `backports`, or a file of the user's.

    kernel_package("stable")        ->  LinuxKernel(version="6.1.0-56-cloud-amd64", image=..., headers=..., ...)
    own_kernel(Path("bzImage"), headers=Path("build"))

Debian's are unpacked, not installed; the headers that come with them expect to be in /usr/src, and are told where they
really are by one line of their Makefile.

Ref: Linux Documentation/arch/x86/boot.rst (kernel_version, header magic); Documentation/kbuild/modules.rst.
"""

import re
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sidecar.errors import UserError
from sidecar.qemu.linux.apt import Apt, AptFailed, Package, release
from sidecar.qemu.linux.cache import Tell, cache_root, silent
from sidecar.qemu.linux.store import Store, Tree

Which = Literal["stable", "backports"]
WHICH: tuple[Which, ...] = ("stable", "backports")

META_PACKAGE = "linux-image-cloud-amd64"
IMAGE_PREFIX = "linux-image-"
IMAGE_PARTS = ("linux-binary-", "linux-modules-")  # what Debian's kernels since 7.0 are split into
HEADER_PARTS = ("linux-headers-", "linux-kbuild-")

BESIDE = "$(abspath $(dir $(lastword $(MAKEFILE_LIST)))..)/"
"""In a Makefile: the directory above its own, wherever the tree is."""

ABSOLUTE = re.compile(r"^(include\s+|KBUILD_OUTPUT\s*=\s*)/usr/src/", re.MULTILINE)
IMAGES = ("boot/vmlinuz-*", "lib/modules/*/vmlinuz", "usr/lib/modules/*/vmlinuz")

BOOT_FLAG = (0x1FE, struct.pack("<H", 0xAA55))
HEADER_MAGIC = (0x202, b"HdrS")
KERNEL_VERSION = 0x20E  # u16: where the version string is, from 0x200


class BadKernel(UserError):
    """A file or directory that cannot serve as the kernel or its headers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LinuxKernel:
    """A kernel: its release (`uname -r`), the bzImage, and what there is for it besides."""

    version: str
    image: Path
    modules: Path | None = None  # lib/modules/<version>: the stock modules
    headers: Path | None = None  # a directory for `make -C`
    config: Path | None = None


def kernel_package(which: Which, *, tell: Tell = silent, store: Store | None = None) -> LinuxKernel:
    """Debian's kernel for this host's release, or the one of its backports, with headers. Raises AptFailed."""
    store = store or Store(cache_root(), tell=tell)
    return _debian_kernel(store.get(_set_name(which), lambda apt: choose_packages(apt, which), complete))


def own_kernel(image: Path, *, headers: Path | None = None) -> LinuxKernel:
    """A kernel that the user has, with the stock modules that are where its package puts them. Raises BadKernel."""
    version = image_version(image)
    if headers is not None and not (headers / "Makefile").is_file():
        raise BadKernel(f"--headers {headers}: there is no Makefile in it, so no module can be built against it")
    modules = find_modules([image.absolute().parent.parent, image.absolute().parents[-1]], version)
    return LinuxKernel(version=version, image=image, modules=modules, headers=headers.resolve() if headers else None)


def choose_packages(apt: Apt, which: Which) -> list[Package]:
    """The kernel that the meta package asks for at present, and what builds modules for it."""
    backports = which == "backports"
    meta = apt.candidate(META_PACKAGE, backports=backports)
    images = [name for name in meta.depends if name.startswith(IMAGE_PREFIX)]
    if not images:
        raise AptFailed(f"{META_PACKAGE} {meta.version} depends on no kernel, but on: {', '.join(meta.depends)}")
    image = apt.candidate(images[0], backports=backports)
    flavour = image.name.removeprefix(IMAGE_PREFIX).removesuffix("-unsigned")
    headers = apt.candidate(f"linux-headers-{flavour}", backports=backports)
    parts = [name for name in image.depends if name.startswith(IMAGE_PARTS)]
    parts += [name for name in headers.depends if name.startswith(HEADER_PARTS)]
    return [image, headers, *(apt.candidate(name, backports=backports) for name in parts)]


def complete(tree: Path) -> None:
    """Makes an unpacked kernel usable where it is. Raises AptFailed for packages without a kernel."""
    if find_image(tree) is None:
        raise AptFailed(f"Debian's kernel packages have changed: none of {', '.join(IMAGES)} is in them")
    relocate_headers(tree)


def find_image(tree: Path) -> Path | None:
    """The bzImage in an unpacked kernel."""
    return next((path for pattern in IMAGES for path in sorted(tree.glob(pattern))), None)


def find_modules(roots: Iterable[Path], version: str) -> Path | None:
    """The kernel's folder of modules below one of the roots: in lib/modules or usr/lib/modules."""
    folders = (root / "lib" / "modules" / version for top in roots for root in (top, top / "usr"))
    return next((folder for folder in folders if (folder / "kernel").is_dir()), None)


def relocate_headers(tree: Path) -> None:
    """Lets the unpacked headers find their common part beside them: their links are relative, their Makefile is not."""
    for makefile in tree.glob("usr/src/linux-headers-*/Makefile"):
        text = makefile.read_text()
        makefile.write_text(ABSOLUTE.sub(lambda match: match.group(1).replace("=", ":=") + BESIDE, text))


def image_version(image: Path) -> str:
    """The release that a bzImage names in its header. Raises BadKernel."""
    try:
        with image.open("rb") as file:
            head = file.read(0x8000)
    except OSError as error:
        raise BadKernel(f"--kernel {image}: {error.strerror}") from error
    for offset, expected in (BOOT_FLAG, HEADER_MAGIC):
        if head[offset : offset + len(expected)] != expected:
            raise BadKernel(f"--kernel {image}: not a bzImage: expected {expected!r} at {offset:#x}")
    start = 0x200 + int.from_bytes(head[KERNEL_VERSION : KERNEL_VERSION + 2], "little")
    text = head[start:].split(b"\0", 1)[0].decode("ascii", "replace")
    if start == 0x200 or not text.split():
        raise BadKernel(f"--kernel {image}: its header names no version")
    return text.split()[0]


def _set_name(which: Which) -> str:
    return f"kernel-{release()}-{which}"


def _debian_kernel(tree: Tree) -> LinuxKernel:
    image = find_image(tree.root)
    if image is None:
        raise AptFailed(f"there is no kernel any more in {tree.root}: remove it, and it is fetched again")
    version = image_version(image)
    headers = tree.root / "usr" / "src" / f"linux-headers-{version}"
    config = headers / ".config"
    return LinuxKernel(
        version=version,
        image=image,
        modules=find_modules([tree.root], version),
        headers=headers if headers.is_dir() else None,
        config=config if config.is_file() else None,
    )
