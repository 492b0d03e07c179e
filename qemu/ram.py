"""The machine's RAM, mapped into this process: each side sees at once what the other stores.

Stores and loads of aligned 4 and 8 byte items through `view(...).cast("I")` or `.cast("Q")` are single accesses. They
are atomic against the guest only with -accel tcg,thread=multi or KVM. Code is never changed this way: TCG does not
see host stores into code that it has translated.
"""

import mmap
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from sidecar.errors import UserError
from sidecar.qemu.memory_map import MemoryMap, OutOfRange, RamRange


class PhysicalMemory(Protocol):
    """Anything that guest-physical memory can be read from: mapped RAM, a file, a running QEMU."""

    def read(self, pa: int, size: int) -> bytes: ...


class GuestRam:
    """Reads and writes guest-physical memory through the files behind it.

    `files` are file descriptors by memory backend; they stay the caller's. `memory_map` asks QEMU for the map; it is
    asked at the first access, and once more when an address is not in the map, since firmware changes it.
    """

    def __init__(self, files: Mapping[str, int], memory_map: Callable[[], MemoryMap]) -> None:
        self._maps = {name: mmap.mmap(file, 0, mmap.MAP_SHARED) for name, file in files.items()}
        self._ask = memory_map
        self._known: MemoryMap | None = None

    @property
    def memory_map(self) -> MemoryMap:
        if self._known is None:
            self._known = self._ask()
        return self._known

    @property
    def ranges(self) -> tuple[RamRange, ...]:
        return self.memory_map.ranges

    def read(self, pa: int, size: int) -> bytes:
        """A copy of [pa, pa + size), which may span ranges that touch. Raises OutOfRange."""
        return b"".join(self._maps[name][offset : offset + length] for name, offset, length in self._pieces(pa, size))

    def write(self, pa: int, data: bytes | bytearray | memoryview) -> None:
        """Stores `data` at pa. Raises OutOfRange, and then has stored nothing."""
        done = 0
        with memoryview(data).cast("B") as source:
            for name, offset, length in self._pieces(pa, len(source)):
                self._maps[name][offset : offset + length] = source[done : done + length]
                done += length

    def view(self, pa: int, size: int) -> memoryview:
        """[pa, pa + size) itself, writable; it lies within one range. Raises OutOfRange."""
        try:
            ram = self.memory_map.range_at(pa, size)
        except OutOfRange:
            ram = self.refresh().range_at(pa, size)
        offset = ram.offset + pa - ram.start
        return memoryview(self._maps[ram.backend])[offset : offset + size]

    def refresh(self) -> MemoryMap:
        """Asks QEMU for the map again."""
        self._known = self._ask()
        return self._known

    def close(self) -> None:
        """Unmaps the RAM; views that are still held keep their mapping until they go."""
        for mapping in self._maps.values():
            try:
                mapping.close()
            except BufferError:
                continue
        self._maps.clear()
        self._known = MemoryMap(())

    def _pieces(self, pa: int, size: int) -> list[tuple[str, int, int]]:
        try:
            return list(self.memory_map.pieces(pa, size))
        except OutOfRange:
            return list(self.refresh().pieces(pa, size))


class NoRamFile(UserError):
    """A file that cannot be a dump of guest RAM."""


class RamFile:
    """A dump of guest RAM in a plain file, read only; an offset in it is a guest-physical address. Raises NoRamFile."""

    def __init__(self, path: Path) -> None:
        try:
            with path.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise NoRamFile(f"there is no RAM in {path}: {getattr(error, 'strerror', None) or error}") from error
        self.memory_map = MemoryMap((RamRange(0, len(self._map), path.name, 0),))

    @property
    def ranges(self) -> tuple[RamRange, ...]:
        return self.memory_map.ranges

    def read(self, pa: int, size: int) -> bytes:
        """A copy of [pa, pa + size). Raises OutOfRange."""
        self.memory_map.range_at(pa, size)
        return self._map[pa : pa + size]

    def view(self, pa: int, size: int) -> memoryview:
        """[pa, pa + size) itself, read only. Raises OutOfRange."""
        self.memory_map.range_at(pa, size)
        return memoryview(self._map)[pa : pa + size]

    def close(self) -> None:
        """Unmaps the file, unless views of it are still held."""
        try:
            self._map.close()
        except BufferError:
            return

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
