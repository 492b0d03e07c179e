"""What a layout refuses, and how it says so: every message is under test, one bad input each."""

import json
import re
from enum import IntEnum
from typing import Any

import pytest

from sidecar.layout import BundlePart, CommandPage, ControlPage, CpuMapEntry
from sidecar.layout.boot import BundleKind
from sidecar.layout.parts import Array, Bytes, Int8ul, Int16ul, Int32ul, Int64ul, Struct
from sidecar.layout.registry import ALL
from sidecar.layout.schema import Layout, LayoutError, values_of

Pair = Layout("Pair", Struct("cpu" / Int32ul * "who", "vector" / Int32ul * "which"), size=8, doc="A pair.")
Outer = Layout(
    "Outer",
    Struct("first" / Pair.struct * "one", "more" / Array(3, Pair.struct) * "others", "reserved_20" / Bytes(8) * "zero"),
    size=40,
    doc="Nested.",
)

BAD_DEFINITIONS: list[tuple[str, Any, int, str]] = [
    ("no name", Struct(Int32ul * "what"), 4, "T: the field at 0x0 has no name; name reserved bytes reserved…"),
    ("no sentence", Struct("a" / Int32ul), 4, "T.a: no sentence says what it is"),
    ("wrong size", Struct("a" / Int32ul * "a"), 8, "T: expected 0x8 bytes, the fields have 0x4"),
    ("misaligned", Struct("a" / Int8ul * "a", "b" / Int16ul * "b"), 3, "T.b: at 0x1, expected a multiple of 2"),
    ("misaligned layout", Struct("a" / Int32ul * "a", "p" / Pair.struct * "p"), 12,
     "T.p: at 0x4, expected a multiple of 8"),
    ("twice", Struct("a" / Int8ul * "a", "a" / Int8ul * "b"), 2, "T: a field name appears twice"),
]


@pytest.mark.parametrize(("struct", "size", "message"), [case[1:] for case in BAD_DEFINITIONS],
                         ids=[case[0] for case in BAD_DEFINITIONS])
def test_a_bad_definition_is_refused(struct: Any, size: int, message: str) -> None:
    with pytest.raises(LayoutError, match=f"^{re.escape(message)}$"):
        Layout("T", struct, size=size, doc="A test.")


def test_a_nested_struct_that_is_no_layout_is_refused() -> None:
    with pytest.raises(LayoutError, match=r"^T\.a: .* is not a number, bytes, array or layout$"):
        Layout("T", Struct("a" / Struct("b" / Int8ul) * "a"), size=1, doc="A test.")


def test_an_unknown_attribute_names_the_known_ones() -> None:
    with pytest.raises(AttributeError, match=r"^Pair has no field 'vektor'; it has cpu, vector$"):
        _ = Pair.vektor
    with pytest.raises(AttributeError, match=r"^offset 0x4 is of a plain field: it has no field 'low'$"):
        _ = Pair.vector.low


def test_build_refuses_unknown_and_missing_fields() -> None:
    with pytest.raises(LayoutError, match=r"^Pair: no field vektor; the fields are cpu, vector$"):
        Pair.build(cpu=1, vector=2, vektor=3)
    with pytest.raises(LayoutError, match=r"^Pair: field vector is not given$"):
        Pair.build(cpu=1)
    with pytest.raises(LayoutError, match=r"^Pair: .*"):
        Pair.build(cpu=-1, vector=0)


def test_parse_refuses_too_few_bytes() -> None:
    with pytest.raises(LayoutError, match=r"^Pair: expected 0x8 bytes, got 0x7$"):
        Pair.parse(bytes(7))


def test_offsets_of_nested_fields_and_arrays() -> None:
    assert (Outer.first.vector, Outer.more, Outer.more.COUNT, Outer.more.STRIDE, Outer.more.SIZE) == (4, 8, 3, 8, 24)
    assert CommandPage.error.length == 0x510
    assert ControlPage.cpu_status.COUNT == 4032


def test_what_is_built_is_parsed_back() -> None:
    data = Outer.build(first={"cpu": 1, "vector": 2}, more=[{"cpu": n, "vector": n + 1} for n in range(3)])
    parsed = Outer.parse(data)
    assert (parsed.first.vector, parsed.more[2].cpu, parsed.reserved_20) == (2, 2, bytes(8))


def test_an_unknown_enumeration_value_is_representable() -> None:
    data = BundlePart.build(kind=99, checksum=0, offset=0, size=0)
    parsed = BundlePart.parse(data)
    assert int(parsed.kind) == 99
    assert parsed.kind not in list(BundleKind)
    assert int(CpuMapEntry.parse(b"\xff" * 16).policy) == 0xFFFFFFFF


def test_an_enumeration_must_be_registered_for_the_generators_to_see_it() -> None:
    class Colour(IntEnum):
        RED = 77

    layout = Layout("Coloured", Struct("colour" / values_of(Colour, Int64ul) * "which"), size=8, doc="A test.")
    assert layout.field("colour").values is None
    assert BundlePart.field("kind").values is BundleKind


def test_description_has_exactly_the_promised_shape() -> None:
    described = json.loads(json.dumps(Outer.describe()))
    assert described == {
        "name": "Outer",
        "size": 40,
        "fields": [
            {"name": "first", "offset": 0, "size": 8, "type": "Pair", "doc": "one"},
            {"name": "first.cpu", "offset": 0, "size": 4, "type": "u32", "doc": "who"},
            {"name": "first.vector", "offset": 4, "size": 4, "type": "u32", "doc": "which"},
            {"name": "more", "offset": 8, "size": 24, "type": "Pair[3]", "doc": "others"},
            {"name": "reserved_20", "offset": 32, "size": 8, "type": "u8[8]", "doc": "zero"},
        ],
    }


@pytest.mark.parametrize("layout", ALL, ids=lambda layout: layout.NAME)
def test_reserved_fields_are_named_by_their_offset(layout: Layout) -> None:
    names = {field.name: f"reserved_{field.offset:x}" for field in layout.fields if field.name.startswith("reserved")}
    assert all(name == expected for name, expected in names.items()), names


@pytest.mark.parametrize("layout", ALL, ids=lambda layout: layout.NAME)
def test_fields_follow_each_other_without_holes(layout: Layout) -> None:
    ends = [field.offset + field.size for field in layout.fields]
    assert [field.offset for field in layout.fields] == [0, *ends[:-1]]
    assert ends[-1] == layout.SIZE
    assert all(field.doc.strip() == field.doc for field in layout.fields)
