"""What the shim says of a wrong -initrd: one line, and the machine ends. The checks one by one: tests/unit/shim."""

from pathlib import Path

import pytest

from sidecar.builder import image
from sidecar.layout import ABI_VERSION, PAGE_SIZE, Bundle, BundleKind, BundlePart, abi_hash
from sidecar.layout.boot import BUNDLE_MAGIC
from tests.support.boot_input import boot

GOOD = image.bundle({BundleKind.SIDECAR: image.kernel().elf})
FIRST = Bundle.parts
"""Where the first part's entry stands."""


def put(at: int, value: int, size: int) -> bytes:
    """The good bundle with another number at `at`."""
    return GOOD[:at] + value.to_bytes(size, "little") + GOOD[at + size :]


def test_a_good_bundle_boots(run_directory: Path) -> None:
    assert boot(run_directory, GOOD).ready


def test_more_bytes_than_the_bundle_has_are_harmless(run_directory: Path) -> None:
    assert boot(run_directory, GOOD + b"\xa5" * 1000).ready


@pytest.mark.parametrize("initrd", [None, b""], ids=["none", "empty"])
def test_no_bundle_at_all(run_directory: Path, initrd: bytes | None) -> None:
    assert boot(run_directory, initrd).fatal == (
        "the loader gave no bundle: start QEMU with -initrd and the file that `sidecar build` wrote"
    )


SHORT = "# not a bundle\n"
LONG = "a text file\n" * 1000
WRONG = {
    "a short text file": (SHORT.encode(), f"{len(SHORT)} bytes, expected at least {PAGE_SIZE}"),
    "a long text file": (
        LONG.encode(),
        f"magic {int.from_bytes(LONG[:8].encode(), 'little'):#x}, expected {BUNDLE_MAGIC:#x}: "
        "-initrd names something else than a bundle",
    ),
    "the sidecar alone": (
        image.kernel().elf,
        f"magic {int.from_bytes(image.kernel().elf[:8], 'little'):#x}, expected {BUNDLE_MAGIC:#x}: "
        "-initrd names something else than a bundle",
    ),
    "less than a page": (GOOD[: PAGE_SIZE - 1], f"{PAGE_SIZE - 1} bytes, expected at least {PAGE_SIZE}"),
    "the head alone": (GOOD[:PAGE_SIZE], f"truncated: {PAGE_SIZE} bytes of {len(GOOD)}"),
    "one byte less": (GOOD[:-1], f"truncated: {len(GOOD) - 1} bytes of {len(GOOD)}"),
    "another version": (
        put(Bundle.abi_version, ABI_VERSION + 1, 4),
        f"abi_version {ABI_VERSION + 1}, expected {ABI_VERSION}: build bundle and shim together",
    ),
    "another hash": (
        put(Bundle.abi_hash, abi_hash() ^ 0xFF, 8),
        f"abi_hash {abi_hash() ^ 0xFF:#x}, expected {abi_hash():#x}: build bundle and shim together",
    ),
    "no parts": (put(Bundle.part_count, 0, 4), "part_count 0, expected 1 to 8"),
    "too many parts": (put(Bundle.part_count, 9, 4), "part_count 9, expected 1 to 8"),
    "an unaligned part": (
        put(FIRST + BundlePart.offset, 0x1001, 8), "part 0 has offset 0x1001, expected page alignment"
    ),
    "a part outside": (
        put(FIRST + BundlePart.offset, 0x4000_0000, 8),
        f"part 0 at 0x40000000 with {len(image.kernel().elf)} bytes ends outside the bundle",
    ),
    "a part too large": (
        put(FIRST + BundlePart.size, 1 << 40, 8), f"part 0 at 0x1000 with {1 << 40} bytes ends outside the bundle"
    ),
    "a wrong checksum": (
        put(FIRST + BundlePart.checksum, 0x1234, 4),
        f"part 0 has checksum {image.checksum(image.kernel().elf):#x}, expected 0x1234",
    ),
}  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_bundle_ends_the_machine_with_one_sentence(run_directory: Path, wrong: str) -> None:
    initrd, sentence = WRONG[wrong]
    assert boot(run_directory, initrd).fatal == f"bundle: {sentence}"


@pytest.mark.parametrize(
    "kinds", [{BundleKind.COMMAND_LINE: b"quiet"}, {BundleKind.INITRAMFS: b"070701"}], ids=["command line", "initramfs"]
)
def test_a_bundle_without_a_sidecar_is_a_reason_not_to_use_it(
    run_directory: Path, kinds: dict[BundleKind, bytes]
) -> None:
    assert boot(run_directory, image.bundle(kinds)).fallback == "the bundle carries no sidecar image"
