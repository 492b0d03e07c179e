"""A page is one `construct.Struct`; this is the only module that knows construct's insides.

Everything else is derived by walking a `Layout`: offsets for the assembly text (`ControlPage.request_vector`), the
codec of host and client, the C header, the tables of docs/abi.md and of `sidecar dump layout`.

Sample:

    >>> from sidecar.layout.parts import Int32ul, Struct
    >>> Pair = Layout("Pair", Struct("cpu" / Int32ul * "who", "vector" / Int32ul * "which"), size=8, doc="A pair.")
    >>> int(Pair.vector), Pair.SIZE
    (4, 8)
    >>> Pair.build(cpu=1, vector=0x20).hex()
    '0100000020000000'
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias, TypeVar

import construct

PAGE_SIZE = 4096
EnumClass: TypeAlias = type[enum.IntEnum]


class LayoutError(Exception):
    """A definition that contradicts itself, or bytes or fields that do not fit one; says which, expected and got."""


class FieldOffset(int):
    """The byte offset of a field. Fields of a nested layout are attributes: `CommandPage.error.length`.

    SIZE is the field's size in bytes; COUNT and STRIDE are those of an array (1 and SIZE otherwise).
    """

    SIZE: int
    COUNT: int
    STRIDE: int
    _nested: Layout | None

    @classmethod
    def of(cls, field: Field, base: int = 0) -> FieldOffset:
        offset = cls(base + field.offset)
        offset.SIZE, offset.COUNT, offset.STRIDE = field.size, field.count, field.size // field.count
        offset._nested = field.nested
        return offset

    def __getattr__(self, name: str) -> FieldOffset:
        nested = self.__dict__.get("_nested")
        if nested is None:
            raise AttributeError(f"offset {int(self):#x} is of a plain field: it has no field {name!r}")
        return FieldOffset.of(nested.field(name), int(self))


@dataclass(frozen=True, slots=True)
class Field:
    """One named field: `type` is u8 to u64 or a layout's name, with [count] for arrays; `format` is struct's."""

    name: str
    offset: int
    size: int
    type: str
    doc: str
    count: int
    format: str
    nested: Layout | None
    values: EnumClass | None


class Layout:
    """A named, sized, documented view of one construct Struct. Lower-case attributes are field offsets.

    size: bytes the Struct must have. align: natural alignment of the whole. Raises LayoutError at definition
    if the size is wrong, a field is not naturally aligned, has no sentence, or appears twice.
    """

    _by_struct: ClassVar[dict[int, Layout]] = {}

    def __init__(self, name: str, struct: Any, *, size: int, doc: str, align: int = 8) -> None:
        self.NAME, self.SIZE, self.DOC, self.ALIGN = name, size, doc, align
        self.struct = struct
        self.fields: tuple[Field, ...] = tuple(_walk(name, struct))
        self._by_name = {field.name: field for field in self.fields}
        if len(self._by_name) != len(self.fields):
            raise LayoutError(f"{name}: a field name appears twice")
        if (got := struct.sizeof()) != size:
            raise LayoutError(f"{name}: expected {size:#x} bytes, the fields have {got:#x}")
        Layout._by_struct[id(struct)] = self

    def field(self, name: str) -> Field:
        """The field called `name`; AttributeError if there is none."""
        try:
            return self._by_name[name]
        except KeyError:
            raise AttributeError(f"{self.NAME} has no field {name!r}; it has {', '.join(self._by_name)}") from None

    def __getattr__(self, name: str) -> FieldOffset:
        if name.startswith("_") or name in ("fields", "struct"):
            raise AttributeError(name)
        return FieldOffset.of(self.field(name))

    def __repr__(self) -> str:
        return f"<Layout {self.NAME}, {self.SIZE:#x} bytes>"

    def parse(self, data: bytes | memoryview) -> Any:
        """Decode SIZE bytes into a construct Container; LayoutError if there are fewer."""
        if len(data) < self.SIZE:
            raise LayoutError(f"{self.NAME}: expected {self.SIZE:#x} bytes, got {len(data):#x}")
        return self.struct.parse(bytes(data[: self.SIZE]))

    def build(self, **values: Any) -> bytes:
        """Encode; every field but `reserved…` must be named, and no other: construct would drop it without a word."""
        wanted = [field.name for field in self.fields if not field.name.startswith("reserved")]
        if unknown := sorted(set(values) - set(wanted)):
            raise LayoutError(f"{self.NAME}: no field {', '.join(unknown)}; the fields are {', '.join(wanted)}")
        if missing := [name for name in wanted if name not in values]:
            raise LayoutError(f"{self.NAME}: field {', '.join(missing)} is not given")
        reserved = {field.name: _zero(field) for field in self.fields if field.name.startswith("reserved")}
        try:
            return bytes(self.struct.build({**values, **reserved}))
        except construct.ConstructError as error:
            raise LayoutError(f"{self.NAME}: {error}") from error

    def leaves(self, prefix: str = "", base: int = 0) -> Iterator[Field]:
        """Every field with nested ones under dotted names, offsets from the start of the outermost layout."""
        for field in self.fields:
            placed = Field(
                prefix + field.name, base + field.offset, field.size, field.type, field.doc,
                field.count, field.format, field.nested, field.values,
            )
            yield placed
            if field.nested is not None and field.count == 1:
                yield from field.nested.leaves(placed.name + ".", placed.offset)

    def describe(self) -> dict[str, Any]:
        """The layout as JSON-ready data: name, size, fields with name, offset, size, type and doc."""
        return {
            "name": self.NAME,
            "size": self.SIZE,
            "fields": [
                {"name": f.name, "offset": f.offset, "size": f.size, "type": f.type, "doc": f.doc}
                for f in self.leaves()
            ],
        }


def values_of(kind: EnumClass, carrier: Any) -> Any:
    """A field of `carrier`'s width that holds a `kind`; an unknown value parses as the bare number."""
    return construct.Enum(carrier, kind)


_TYPES = {"B": "u8", "H": "u16", "L": "u32", "I": "u32", "Q": "u64"}


def _walk(owner: str, struct: Any) -> Iterator[Field]:
    offset = 0
    for member in struct.subcons:
        if not member.name:
            raise LayoutError(f"{owner}: the field at {offset:#x} has no name; name reserved bytes reserved…")
        if not member.docs:
            raise LayoutError(f"{owner}.{member.name}: no sentence says what it is")
        field = _field(owner, member, offset)
        yield field
        offset += field.size


def _field(owner: str, member: Any, offset: int) -> Field:
    inner, count = member, 1
    while isinstance(inner, construct.Renamed):
        inner = inner.subcon
    if isinstance(inner, construct.Array):
        inner, count = inner.subcon, int(inner.count)
    values: EnumClass | None = None
    if isinstance(inner, construct.Enum):
        inner, values = inner.subcon, _enum_class(inner)
    nested = Layout._by_struct.get(id(inner))
    size = int(member.sizeof())
    if nested is not None:
        kind, form, align = nested.NAME, "", nested.ALIGN
    elif isinstance(inner, construct.FormatField):
        form = str(inner.fmtstr)
        kind, align = _TYPES[form[-1]], int(inner.sizeof())
    elif isinstance(inner, construct.Bytes):
        kind, form, align, count = "u8", "", 1, size
    else:
        raise LayoutError(f"{owner}.{member.name}: {inner!r} is not a number, bytes, array or layout")
    if offset % align:
        raise LayoutError(f"{owner}.{member.name}: at {offset:#x}, expected a multiple of {align}")
    shown = f"{kind}[{count}]" if count > 1 or isinstance(inner, construct.Bytes) else kind
    return Field(member.name, offset, size, shown, member.docs, count, form, nested, values)


_Kind = TypeVar("_Kind", bound=enum.IntEnum)
_ENUMS: dict[frozenset[tuple[str, int]], EnumClass] = {}


def register_enum(kind: type[_Kind]) -> type[_Kind]:
    """Class decorator: makes `kind` known to the generators (C header, docs, ABI hash)."""
    _ENUMS[frozenset((member.name, int(member)) for member in kind)] = kind
    return kind


def _enum_class(subcon: Any) -> EnumClass | None:
    mapping: Mapping[str, int] = subcon.encmapping
    return _ENUMS.get(frozenset((str(name), int(value)) for name, value in mapping.items()))


def _zero(field: Field) -> Any:
    if field.nested is not None:
        raise LayoutError(f"reserved field {field.name} cannot be a layout")
    if field.format:
        return 0 if field.count == 1 else [0] * field.count
    return bytes(field.size)
