"""An initramfs archive: cpio in its "newc" form, which the kernel unpacks at boot. The same entries, the same bytes.

    archive([Entry.directory("etc"), Entry.file("etc/motd", b"hello"), Entry.link("bin", "usr/bin")])

Archives can be concatenated; a later entry replaces an earlier file of the same name.

    070701 00000001 000081a4 ...                a header of 6 + 13 * 8 hexadecimal digits, the name and a zero byte,
    etc/motd                                    padded to 4 bytes; then the content, padded to 4 bytes

Ref: Linux Documentation/driver-api/early-userspace/buffer-format.rst.
"""

import stat
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

MAGIC = "070701"
END = "TRAILER!!!"


@dataclass(frozen=True, slots=True)
class Entry:
    """One file, directory, symbolic link or character device; `mode` has the type bits too."""

    name: str
    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)

    @classmethod
    def file(cls, name: str, data: bytes, *, executable: bool = False) -> Self:
        return cls(name, stat.S_IFREG | (0o755 if executable else 0o644), data)

    @classmethod
    def directory(cls, name: str, permissions: int = 0o755) -> Self:
        return cls(name, stat.S_IFDIR | permissions)

    @classmethod
    def link(cls, name: str, target: str) -> Self:
        return cls(name, stat.S_IFLNK | 0o777, target.encode())

    @classmethod
    def character_device(cls, name: str, major: int, minor: int, permissions: int = 0o600) -> Self:
        return cls(name, stat.S_IFCHR | permissions, device=(major, minor))


def archive(entries: Iterable[Entry]) -> bytes:
    """The entries in their order, then the end mark. Everything belongs to root and is of the year 1970."""
    parts = [_member(number, entry) for number, entry in enumerate(entries, 1)]
    return b"".join([*parts, _member(0, Entry(END, 0))])


def with_directories(entries: Iterable[Entry]) -> list[Entry]:
    """The entries sorted by name, with the directories above them: the kernel makes no directory by itself."""
    known = {entry.name: entry for entry in entries}
    for name in list(known):
        above = name.rpartition("/")[0]
        while above and above not in known:
            known[above] = Entry.directory(above)
            above = above.rpartition("/")[0]
    return [known[name] for name in sorted(known)]


def _member(inode: int, entry: Entry) -> bytes:
    name = entry.name.encode() + b"\0"
    links = 2 if stat.S_ISDIR(entry.mode) else 1
    fields = (
        inode, entry.mode, 0, 0, links, 0, len(entry.data), 0, 0, *entry.device, len(name), 0,
    )  # fmt: skip
    head = MAGIC.encode() + "".join(f"{field:08x}" for field in fields).encode()
    return _padded(head + name) + _padded(entry.data)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
