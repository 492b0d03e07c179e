"""The bundle's head and parts, each wrong in one way: one sentence, and the machine ends. Nothing wrong is a fault."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.builder import image
from sidecar.layout import ABI_VERSION, Bundle, BundleKind, BundlePart, abi_hash
from sidecar.layout.boot import BUNDLE_MAGIC, BUNDLE_PARTS
from tests.support.emulator import Emulator, Outcome
from tests.unit.shim.helpers import RAM, changed, fatal, fresh, returned

BUNDLE = RAM.start
PARTS = {
    BundleKind.SIDECAR: bytes(range(251)) * 40,
    BundleKind.LINUX: b"vmlinuz" * 1000,
    BundleKind.COMMAND_LINE: b"quiet",
}
GOOD = image.bundle(PARTS)
FOUND = ("sidecar_part", "linux_part", "initramfs_part", "command_line_part")


def check(data: bytes, size: int | None = None) -> tuple[Emulator, Outcome]:
    """check_bundle over these bytes, of which the loader counted `size`."""
    shim = fresh()
    shim.write(BUNDLE, data)
    shim.write("bundle_pa", BUNDLE)
    shim.write("bundle_bytes", len(data) if size is None else size)
    return shim, shim.call("check_bundle")


def head(**changes: Any) -> bytes:
    """The good bundle with another head; `part0` and so on are dictionaries of changes to a part."""
    parsed = Bundle.parse(GOOD)
    values = {name: parsed[name] for name in ("magic", "abi_version", "part_count", "abi_hash", "total_bytes", "parts")}
    for number, part in enumerate(values["parts"]):
        part.update(changes.pop(f"part{number}", {}))
    return Bundle.build(**(values | changes)) + GOOD[Bundle.SIZE :]


def test_every_part_is_found() -> None:
    shim, outcome = check(GOOD)
    returned(shim, outcome)
    parts = BUNDLE + Bundle.parts
    assert [shim.number(name) for name in FOUND] == [
        parts, parts + BundlePart.SIZE, 0, parts + 2 * BundlePart.SIZE,
    ]  # fmt: skip


@pytest.mark.parametrize("size", [0, 1, 4095])
def test_less_than_a_page_is_no_bundle(size: int) -> None:
    assert fatal(*check(GOOD, size)) == f"bundle: {size} bytes, expected at least 4096"


@pytest.mark.parametrize("size", [4096, len(GOOD) - 4096, len(GOOD) - 1])
def test_a_truncated_bundle(size: int) -> None:
    assert fatal(*check(GOOD, size)) == f"bundle: truncated: {size} bytes of {len(GOOD)}"


def test_more_bytes_than_the_bundle_has_are_harmless() -> None:
    returned(*check(GOOD + bytes(100)))


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "magic": (
        {"magic": 0x1234}, f"magic 0x1234, expected {BUNDLE_MAGIC:#x}: -initrd names something else than a bundle"
    ),
    "version": (
        {"abi_version": ABI_VERSION + 1},
        f"abi_version {ABI_VERSION + 1}, expected {ABI_VERSION}: build bundle and shim together",
    ),
    "hash": (
        {"abi_hash": abi_hash() ^ 1},
        f"abi_hash {abi_hash() ^ 1:#x}, expected {abi_hash():#x}: build bundle and shim together",
    ),
    "no parts": ({"part_count": 0}, "part_count 0, expected 1 to 8"),
    "too many parts": ({"part_count": 9}, "part_count 9, expected 1 to 8"),
    "far too many parts": ({"part_count": 0xFFFFFFFF}, f"part_count {0xFFFFFFFF}, expected 1 to 8"),
    "offset": ({"part1": {"offset": 0x1004}}, "part 1 has offset 0x1004, expected page alignment"),
    "offset behind the end": (
        {"part0": {"offset": len(GOOD) + 4096}},
        f"part 0 at {len(GOOD) + 4096:#x} with {len(PARTS[BundleKind.SIDECAR])} bytes ends outside the bundle",
    ),
    "huge offset": (
        {"part0": {"offset": (1 << 64) - 4096}},
        f"part 0 at {(1 << 64) - 4096:#x} with {len(PARTS[BundleKind.SIDECAR])} bytes ends outside the bundle",
    ),
    "size": (
        {"part2": {"size": 4097}}, f"part 2 at {len(GOOD) - 4096:#x} with 4097 bytes ends outside the bundle"
    ),
    "huge size": (
        {"part1": {"size": (1 << 64) - 1}}, f"part 1 at 0x4000 with {(1 << 64) - 1} bytes ends outside the bundle"
    ),
    "total": (
        {"total_bytes": 4096}, f"part 0 at 0x1000 with {len(PARTS[BundleKind.SIDECAR])} bytes ends outside the bundle"
    ),
    "checksum": (
        {"part0": {"checksum": 0x77}},
        f"part 0 has checksum {image.checksum(PARTS[BundleKind.SIDECAR]):#x}, expected 0x77",
    ),
}  # fmt: skip


@pytest.mark.parametrize("wrong", BAD)
def test_a_wrong_field_ends_the_machine_with_its_value(wrong: str) -> None:
    changes, sentence = BAD[wrong]
    assert fatal(*check(head(**changes))) == f"bundle: {sentence}"


def test_a_changed_byte_of_the_sidecar_is_seen() -> None:
    data = bytearray(GOOD)
    data[Bundle.SIZE + 5000] ^= 0x10
    assert fatal(*check(bytes(data))).startswith("bundle: part 0 has checksum ")


@given(st.binary(max_size=300))
def test_the_checksum_is_pythons(part: bytes) -> None:
    returned(*check(image.bundle({BundleKind.SIDECAR: part})))


@given(st.integers(0, Bundle.parts + BUNDLE_PARTS * BundlePart.SIZE - 1), st.binary(min_size=1, max_size=8))
def test_no_head_makes_it_fault_or_take_a_part_outside_of_the_bundle(at: int, wrong: bytes) -> None:
    data = GOOD[:at] + wrong + GOOD[at + len(wrong) :]
    shim, outcome = check(data)
    if outcome.stop:
        assert fatal(shim, outcome).startswith("bundle: ")
        return
    assert changed(shim) <= {*FOUND, "bundle_pa", "bundle_bytes"}
    for name in FOUND:
        if place := shim.number(name):
            part = BundlePart.parse(shim.read(place, BundlePart.SIZE))
            assert part.offset + part.size <= len(data)
