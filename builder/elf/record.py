"""Fixed-size little-endian records, declared with construct; the only module here that imports it.

A record is built whole: construct drops unknown names without a word, so `Record.build` refuses a name too many
or too few. All fields are numbers, so a parsed record is a mapping of plain integers.
"""

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import construct

from sidecar.builder.elf.error import ElfError

Field = Any
"""construct ships no type information, and what it exports is made by decorators that type checkers misread."""

U8: Field = construct.Int8ul
U16: Field = construct.Int16ul
U32: Field = construct.Int32ul
U56: Field = construct.BytesInteger(7, swapped=True)
U64: Field = construct.Int64ul
S64: Field = construct.Int64sl


class Record:
    """One named structure: its construct declaration, its size, and whole-record build and parse.

    >>> Record("pair", 4, first=U16, second=U16).build(first=1, second=2).hex()
    '01000200'
    """

    __slots__ = ("_struct", "fields", "name", "size")

    def __init__(self, name: str, size: int, /, **fields: Field) -> None:
        """Declare the fields in order; `size` is the manual's size in bytes.

        Raises TypeError when the declaration does not have that size.
        """
        self._struct: Any = construct.Struct(**fields)
        self.name = name
        self.size = size
        self.fields = frozenset(fields)
        if self._struct.sizeof() != size:
            raise TypeError(f"record {name} is {self._struct.sizeof():#x} bytes, expected {size:#x}")

    def build(self, **values: int) -> bytes:
        """The record's bytes. Raises TypeError unless exactly the declared fields are given."""
        if values.keys() != self.fields:
            difference = ", ".join(sorted(values.keys() ^ self.fields))
            raise TypeError(f"record {self.name} takes exactly its declared fields; check {difference}")
        return bytes(self._struct.build(values))

    def parse(self, data: bytes, offset: int = 0) -> Mapping[str, int]:
        """The record at `offset` as field name -> number. Raises ElfError when the data ends before it does."""
        end = offset + self.size
        if end > len(data):
            raise ElfError(
                f"{self.name} at offset {offset:#x}: expected {self.size:#x} bytes, "
                f"got {max(0, len(data) - offset):#x} before the end of the file"
            )
        container = self._struct.parse(data[offset:end])
        return {name: int(container[name]) for name in self.fields}

    def offsets(self) -> SimpleNamespace:
        """Byte offset of each field, and SIZE, as attributes: what assembly text names `Elf64Ehdr.e_phoff`."""
        offsets: dict[str, int] = {}
        position = 0
        for member in self._struct.subcons:
            offsets[str(member.name)] = position
            position += int(member.sizeof())
        return SimpleNamespace(**offsets, SIZE=self.size)
