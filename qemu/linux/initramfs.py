"""The guest's initramfs: archives one after the other, each made again only when what is in it has changed.

    userland    busybox, kmod, Python              packages of the release         28 MB
    modules     /lib/modules/<version>             kernel and driver                4 MB
    libraries   what our packages import           versions of those               11 MB
    own         /init, the agent, our packages     this source tree                 1 MB
    rest        files of the user                  each boot

The kernel unpacks them in this order. It is not compressed: under TCG the guest would take longer to decompress it than
QEMU takes to load it.

Ref: Linux Documentation/filesystems/ramfs-rootfs-initramfs.rst and driver-api/early-userspace/buffer-format.rst.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from sidecar.errors import UserError
from sidecar.qemu.linux import cpio, libraries, modules, own_files, python, userland
from sidecar.qemu.linux.cache import Tell, cache_root, silent, write_whole
from sidecar.qemu.linux.cpio import Entry
from sidecar.qemu.linux.kernels import LinuxKernel
from sidecar.qemu.linux.store import Tree

COPIED_FOLDER = "root"

KEPT = 2
"""Archives of one kind that stay in the cache."""


def initramfs(
    kernel: LinuxKernel,
    *,
    guest: Tree,
    driver: Path | None = None,
    copy_in: Sequence[Path] = (),
    tell: Tell = silent,
    cache: Path | None = None,
) -> bytes:
    """The archives for `kernel`: `driver` is a .ko file, `copy_in` files for /root. Raises UserError, AptFailed."""
    folder = (cache or cache_root()) / "archives"
    makers = (cpio, libraries, modules, python, userland)
    recipe = _hash([Path(module.__file__ or "").read_bytes() for module in makers])

    def part(kind: str, key: str, make: Callable[[], Iterable[Entry]]) -> bytes:
        return cached(folder, kind, _hash([recipe.encode(), key.encode()]), make, tell)

    driven = _hash([driver.read_bytes()]) if driver else "none"
    return b"".join(
        (
            part("userland", guest.key, lambda: userland.guest_entries(guest)),
            part(
                f"modules-{kernel.version}",
                f"{guest.key} {kernel.modules} {driven}",
                lambda: modules.module_entries(kernel, guest.root, driver),
            ),
            part(
                "libraries", f"{guest.key} {libraries.fingerprint()}", lambda: libraries.library_entries(guest.root)
            ),
            part("own", f"{guest.key} {own_files.fingerprint()}", lambda: own_files.own_entries(guest.root)),
            packed(copied_entries(copy_in)),
        )
    )


def cached(folder: Path, kind: str, key: str, make: Callable[[], Iterable[Entry]], tell: Tell) -> bytes:
    """The archive of that kind and key: from the cache, else made and kept there in the place of older ones."""
    file = folder / f"{kind}_{key}.cpio"
    try:
        return file.read_bytes()
    except FileNotFoundError:
        tell(f"packing the guest's {kind.partition('-')[0]}")
    data = packed(make())
    write_whole(file, data)
    others = sorted(folder.glob(f"{kind}_*.cpio"), key=lambda path: path.stat().st_mtime, reverse=True)
    for old in others[KEPT:]:
        old.unlink(missing_ok=True)
    return data


def packed(entries: Iterable[Entry]) -> bytes:
    """An archive that the next one can follow: the kernel skips zeros up to a multiple of 4, QEMU keeps pages."""
    data = cpio.archive(cpio.with_directories(entries))
    return data + bytes(-len(data) % 512)


def copied_entries(files: Sequence[Path]) -> list[Entry]:
    """The user's files. Raises UserError for one that cannot be read."""
    entries = []
    for file in files:
        try:
            data, mode = file.read_bytes(), file.stat().st_mode
        except OSError as error:
            raise UserError(f"--copy-in {file}: {error.strerror}") from error
        entries.append(Entry.file(f"{COPIED_FOLDER}/{file.name}", data, executable=bool(mode & 0o100)))
    return entries


def _hash(parts: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(hashlib.sha256(part).digest())
    return digest.hexdigest()[:12]
