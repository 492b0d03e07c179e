"""A sidecar image that is truncated or contradicts itself, in a bundle that is right: a reason not to use it.

Never a fault of the shim, never a wait without end. Every check with its sentence: tests/unit/shim/test_loader.py and
tests/unit/kernel; here the machine's end is what counts.
"""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from sidecar.builder import image
from sidecar.layout import BundleKind
from tests.support.boot_input import Ending, boot
from tests.support.elf_fields import EHDR, PHDR, Field, change, segments

ELF = image.kernel().elf
LOADS = [number for number, one in enumerate(segments(ELF)) if one["p_type"] == 1]
CODE = next(number for number in LOADS if segments(ELF)[number]["p_flags"] & 1)


def boot_image(directory: Path, data: bytes) -> Ending:
    """Boot with this image in a bundle whose checksum fits."""
    return boot(directory, image.bundle({BundleKind.SIDECAR: data}), smp=3)


ENDS = {
    "nothing": 0,
    "half a header": 32,
    "the header alone": 64,
    "half the program headers": 64 + 56 * 4,
    "in the code": segments(ELF)[CODE]["p_offset"] + 100,
    "a byte of the last segment missing": image.kernel().plan.loaded_file_bytes - 1,
}


@pytest.mark.parametrize("end", ENDS)
def test_a_truncated_image_is_not_used(run_directory: Path, end: str) -> None:
    reason = boot_image(run_directory, ELF[: ENDS[end]]).fallback
    assert reason.startswith("the sidecar image has ")
    assert reason.endswith((": truncated?", f"{ENDS[end]} bytes, expected at least 64"))


WRONG = {
    "magic": (change(ELF, EHDR["ei_mag"], 0x7F464C45), "the sidecar image has ELF magic "),
    "class": (change(ELF, EHDR["ei_class"], 1), "the sidecar image has ELF class 0x1"),
    "type": (change(ELF, EHDR["e_type"], 2), "the sidecar image has ELF type 0x2"),
    "machine": (change(ELF, EHDR["e_machine"], 183), "the sidecar image has ELF machine 0xb7"),
    "program headers": (change(ELF, EHDR["e_phoff"], 1 << 63), "the sidecar image has its program headers at "),
    "entry in the headers": (change(ELF, EHDR["e_entry"], 0), "the sidecar image has its entry at 0x0, "),
    "entry beyond the image": (change(ELF, EHDR["e_entry"], 1 << 40), "the sidecar image has its entry at "),
    "code without its right": (change(ELF, PHDR["p_flags"], 4, segment=CODE), "the sidecar image has its entry at "),
    "code that may be written": (
        change(ELF, PHDR["p_flags"], 7, segment=CODE), "sidecar image: the segment from page "
    ),
    "huge .bss": (change(ELF, PHDR["p_memsz"], 1 << 62, segment=LOADS[-1]), "the sidecar image has segment "),
    "less .bss than linked": (
        change(ELF, PHDR["p_memsz"], segments(ELF)[LOADS[-1]]["p_memsz"] - 0x1000, segment=LOADS[-1]),
        "sidecar image: page ",
    ),
}  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_image_is_not_used(run_directory: Path, wrong: str) -> None:
    data, reason = WRONG[wrong]
    assert boot_image(run_directory, data).fallback.startswith(reason)


@pytest.mark.parametrize("segment", LOADS)
def test_an_image_without_one_of_its_segments_is_not_used(run_directory: Path, segment: int) -> None:
    ending = boot_image(run_directory, change(ELF, PHDR["p_type"], 0, segment=segment))
    assert ending.fallback.startswith(("sidecar image: page ", "the sidecar image has its entry at "))


FIELDS = [(field, None) for field in EHDR.values()] + [
    (field, segment) for field in PHDR.values() for segment in range(len(segments(ELF)))
]
NUMBER = st.sampled_from([0, 1, 7, 0xFFF, 0x1000, 0x7FFF, 1 << 20, 1 << 32, 1 << 63, (1 << 64) - 1])


@pytest.mark.timeout(300)  # each example is a boot
@given(field=st.sampled_from(FIELDS), value=NUMBER | st.integers(0, len(ELF)))
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_one_random_field_is_harmless_or_a_reason(
    run_directory: Path, field: tuple[Field, int | None], value: int
) -> None:
    assume(field != (EHDR["e_entry"], None) or not in_code(value))
    where, segment = field
    ending = boot_image(run_directory, change(ELF, where, value, segment=segment))
    assert ending.ready or ending.fallback


def in_code(entry: int) -> bool:
    """An entry elsewhere in the code cannot be told from the right one."""
    code = segments(ELF)[CODE]
    return code["p_vaddr"] <= entry < code["p_vaddr"] + code["p_filesz"]
