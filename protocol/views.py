"""A shared page as an object: fields are attributes, integers print in hex, two moments can be compared.

    >>> from sidecar.layout import ControlPage, CpuStatus
    >>> page = View(ControlPage, memoryview(bytearray(ControlPage.SIZE)))
    >>> page.request_vector = 0x20
    >>> page.request_vector
    0x20
    >>> page.cpu_status[3] = CpuStatus.IDLE
    >>> before = page.snapshot()
    >>> page.needs_attention = 1
    >>> diff(before, page.snapshot())
    [Change(name='needs_attention', old=0x0, new=0x1)]

Reads and writes go to the memory itself, one field at a time; they are no atomic exchanges (those are in `atomics`).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from sidecar.layout.schema import Field, Layout


class HexInt(int):
    """An integer that shows itself in hex."""

    def __repr__(self) -> str:
        return hex(self)

    __str__ = __repr__


class View:
    """`memory` seen as `layout`. An unknown field raises AttributeError, also when it is assigned."""

    __slots__ = ("_layout", "_memory")
    _layout: Layout
    _memory: memoryview

    def __init__(self, layout: Layout, memory: memoryview) -> None:
        if len(memory) < layout.SIZE:
            raise ValueError(f"{layout.NAME} has {layout.SIZE:#x} bytes, the memory {len(memory):#x}")
        object.__setattr__(self, "_layout", layout)
        object.__setattr__(self, "_memory", memory[: layout.SIZE])

    def __getattr__(self, name: str) -> Any:
        return _get(self._memory, self._layout.field(name))

    def __setattr__(self, name: str, value: Any) -> None:
        _set(self._memory, self._layout.field(name), value)

    def __dir__(self) -> list[str]:
        return [field.name for field in self._layout.fields] + ["snapshot"]

    def __repr__(self) -> str:
        shown = [field for field in self._layout.fields if not field.name.startswith("reserved")]
        lines = "".join(f"\n  {field.name} = {_short(getattr(self, field.name))}" for field in shown)
        return f"<{self._layout.NAME}{lines}>"

    def snapshot(self) -> Snapshot:
        """A copy of the bytes as they are now, itself readable by field names."""
        return Snapshot(self._layout, memoryview(bytes(self._memory)))


class Snapshot(View):
    """A view that no longer changes."""

    __slots__ = ()

    @property
    def data(self) -> bytes:
        """The bytes themselves."""
        return bytes(self._memory)


class ArrayView:
    """An array field: indexable, assignable, as long as its layout says."""

    __slots__ = ("_field", "_memory")

    def __init__(self, memory: memoryview, field: Field) -> None:
        self._memory, self._field = memory, field

    def __len__(self) -> int:
        return self._field.count

    def __getitem__(self, index: int) -> Any:
        return _item(self._memory, self._field, self._checked(index))

    def __setitem__(self, index: int, value: Any) -> None:
        _put(self._memory, self._field, self._checked(index), value)

    def __iter__(self) -> Iterator[Any]:
        return (self[index] for index in range(len(self)))

    def __repr__(self) -> str:
        return f"[{', '.join(_short(value) for value in self)}]"

    def _checked(self, index: int) -> int:
        if not -len(self) <= index < len(self):
            raise IndexError(f"{self._field.name} has {len(self)} items, there is no number {index}")
        return index % len(self)


@dataclass(frozen=True, slots=True)
class Change:
    """One field that differs, under its dotted name; the values as a view shows them."""

    name: str
    old: Any
    new: Any


def diff(old: Snapshot, new: Snapshot) -> list[Change]:
    """Every field that differs between two snapshots of the same layout, in the page's order."""
    if old._layout is not new._layout:
        raise ValueError(f"a {old._layout.NAME} cannot be compared with a {new._layout.NAME}")
    return list(_changes(old._layout, old._memory, new._memory, ""))


def _changes(layout: Layout, old: memoryview, new: memoryview, prefix: str) -> Iterator[Change]:
    for field in layout.fields:
        if old[field.offset : field.offset + field.size] == new[field.offset : field.offset + field.size]:
            continue
        name, stride = prefix + field.name, field.size // field.count
        for start, size, label in _parts(field, old, new):
            if field.nested is not None:
                part = slice(field.offset + start, field.offset + start + stride)
                yield from _changes(field.nested, old[part], new[part], f"{name}{label}.")
            elif field.format:
                index = start // stride
                yield Change(name + label, _item(old, field, index), _item(new, field, index))
            else:
                part = slice(field.offset + start, field.offset + start + size)
                yield Change(name + label, bytes(old[part]), bytes(new[part]))


def _parts(field: Field, old: memoryview, new: memoryview) -> Iterator[tuple[int, int, str]]:
    """(start, size, label) of what differs within a field: items of an array, runs of plain bytes."""
    stride = field.size // field.count
    differs = [
        index
        for index in range(field.count)
        if old[field.offset + index * stride : field.offset + (index + 1) * stride]
        != new[field.offset + index * stride : field.offset + (index + 1) * stride]
    ]
    if field.count == 1:
        yield 0, field.size, ""
    elif field.format or field.nested:
        yield from ((index * stride, stride, f"[{index}]") for index in differs)
    else:
        while differs:
            run = next((n for n in range(1, len(differs)) if differs[n] != differs[0] + n), len(differs))
            yield differs[0], run, f"[{differs[0]:#x}:{differs[0] + run:#x}]"
            differs = differs[run:]


def _get(memory: memoryview, field: Field) -> Any:
    if field.format or field.nested:
        return _item(memory, field, 0) if field.count == 1 else ArrayView(memory, field)
    return bytes(memory[field.offset : field.offset + field.size])


def _set(memory: memoryview, field: Field, value: Any) -> None:
    if (field.format or field.nested) and field.count > 1:
        if len(value) != field.count:
            raise ValueError(f"{field.name} has {field.count} items, got {len(value)}")
        for index, item in enumerate(value):
            _put(memory, field, index, item)
    else:
        _put(memory, field, 0, value)


def _item(memory: memoryview, field: Field, index: int) -> Any:
    start = field.offset + index * (field.size // field.count)
    if field.nested is not None:
        return View(field.nested, memory[start : start + field.nested.SIZE])
    (number,) = struct.unpack_from(field.format, memory, start)
    return _known(field.values, number)


def _put(memory: memoryview, field: Field, index: int, value: Any) -> None:
    stride = field.size // field.count
    start = field.offset + index * stride
    if field.format:
        try:
            struct.pack_into(field.format, memory, start, value)
        except struct.error as error:
            raise ValueError(f"{field.name} is a {field.type}, {value!r} does not fit: {error}") from error
        return
    data = bytes(value._memory) if isinstance(value, View) else bytes(value)
    whole = stride if field.nested else field.size
    if len(data) != whole:
        raise ValueError(f"{field.name} has {whole:#x} bytes, got {len(data):#x}")
    memory[start : start + whole] = data


def _known(values: type[IntEnum] | None, number: int) -> int:
    try:
        return values(number) if values is not None else HexInt(number)
    except ValueError:
        return HexInt(number)


def _short(value: Any) -> str:
    """A value in one line: long zeros and long arrays are counted, not printed."""
    if isinstance(value, bytes):
        if not any(value):
            return f"{len(value)} zero bytes"
        text = value.rstrip(b"\0").hex(" ")
        return text if len(text) <= 96 else f"{text[:96]}… ({len(value)} bytes)"
    if isinstance(value, ArrayView):
        used = [(index, item) for index, item in enumerate(value) if not isinstance(item, int) or item]
        if len(value) <= 16:
            return repr(value)
        shown = ", ".join(f"{index}: {_short(item)}" for index, item in used[:16])
        return f"{{{shown}{', …' if len(used) > 16 else ''}}} of {len(value)}"
    if isinstance(value, View):
        return repr(value).replace("\n", "\n  ")
    return f"{type(value).__name__}.{value.name}" if isinstance(value, IntEnum) else repr(value)
