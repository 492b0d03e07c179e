"""The writer: layout rules, reproducibility, build id, and one bad input for each refusal."""

import hashlib
import re
import time
from typing import Any

import pytest

from sidecar.builder.elf import (
    ElfError,
    ElfSymbol,
    SectionKind,
    SectionSpec,
    SegmentKind,
    SymbolType,
    plan_dyn,
    plan_exec,
    write_elf,
)
from sidecar.builder.elf.notes import BUILD_ID_BYTES, BUILD_ID_SECTION
from sidecar.builder.elf.structures import EHDR
from tests.unit.elf.samples import (
    BSS,
    MULTIBOOT2,
    PVH,
    RODATA,
    TEXT,
    WRITABLE,
    dyn_image,
    dyn_inputs,
    dyn_plan,
    exec_image,
    exec_inputs,
    exec_plan,
)


def refusal(sentence: str) -> Any:
    return pytest.raises(ElfError, match=re.escape(sentence))


def test_the_same_input_gives_the_same_bytes() -> None:
    assert dyn_image() == dyn_image()
    assert exec_image() == exec_image()


def test_the_order_of_symbols_and_relocations_does_not_show() -> None:
    plan = dyn_plan()
    inputs = dyn_inputs(plan)
    backwards = {**inputs, "symbols": inputs["symbols"][::-1], "relocations": inputs["relocations"][::-1]}
    assert write_elf(plan, **backwards) == write_elf(plan, **inputs)


@pytest.mark.parametrize("image", [dyn_image(), exec_image()], ids=["dyn", "exec"])
def test_the_build_id_is_the_sha1_over_the_file_with_the_id_zeroed(image: bytes) -> None:
    plan = dyn_plan() if image == dyn_image() else exec_plan()
    section = plan.section(BUILD_ID_SECTION)
    end = section.end - plan.base
    zeroed = image[: end - BUILD_ID_BYTES] + bytes(BUILD_ID_BYTES) + image[end:]
    assert image[end - BUILD_ID_BYTES : end] == hashlib.sha1(zeroed, usedforsecurity=False).digest()


def test_loading_is_copying_the_beginning_and_clearing_the_rest() -> None:
    plan, image = dyn_plan(), dyn_image()
    memory = image[: plan.loaded_file_bytes].ljust(plan.memory_bytes, b"\0")
    for name, content in dyn_inputs(plan)["contents"].items():
        start = plan.addresses[name]
        assert memory[start : start + len(content)] == content
    bss = plan.section(".bss")
    assert memory[bss.vaddr : bss.end] == bytes(BSS.size)
    assert (plan.memory_bytes, plan.loaded_file_bytes) == (bss.end, plan.section(".data").end)


def test_an_executable_page_holds_code_and_breakpoints_only() -> None:
    plan, image = dyn_plan(), dyn_image()
    code = dyn_inputs(plan)["contents"][".text"]
    start = plan.addresses[".text"]
    assert image[start : start + 0x1000] == code.ljust(0x1000, b"\xcc")


def test_segments_in_order_each_on_its_own_pages() -> None:
    plan = dyn_plan()
    assert [one.kind for one in plan.segments] == list(SegmentKind)
    pages = [
        page for one in plan.segments for page in range(one.vaddr >> 12, (one.vaddr + one.memory_bytes + 4095) >> 12)
    ]
    assert len(pages) == len(set(pages))


def test_multiboot2_header_comes_before_large_constants() -> None:
    large = SectionSpec(".rodata", 0x20000, 0x1000, SectionKind.RODATA)
    plan = plan_exec(sections=[large, TEXT, MULTIBOOT2])
    assert plan.section(".multiboot2").end - plan.base <= 0x8000


def test_without_relocations_there_is_no_table() -> None:
    plan = plan_dyn(sections=[TEXT], relocation_count=0)
    assert ".rela.dyn" not in plan.addresses
    image = write_elf(plan, contents={".text": b"\xf4"}, symbols=[], entry=plan.addresses[".text"])
    assert EHDR.parse(image)["e_entry"] == plan.addresses[".text"]


def test_bss_alone_starts_a_segment_of_its_own() -> None:
    plan = plan_exec(sections=[TEXT, BSS])
    assert plan.segments[-1].file_bytes == 0
    image = write_elf(plan, contents={".text": b"\xf4"}, symbols=[], entry=plan.addresses[".text"])
    assert len(image) >= plan.loaded_file_bytes


def test_a_thousand_symbols_and_relocations_take_a_moment() -> None:
    table = SectionSpec(".data.rel.ro", 8000, 8, SectionKind.RELRO)
    plan = plan_dyn(sections=[SectionSpec(".text", 0x4000, 16, SectionKind.TEXT), table], relocation_count=1000)
    text, data = plan.addresses[".text"], plan.addresses[".data.rel.ro"]
    symbols = [ElfSymbol(f"routine_{n}", ".text", text + 16 * n, 16, SymbolType.STT_FUNC) for n in range(1000)]
    relocations = [(data + 8 * n, text + 16 * n) for n in range(1000)]
    contents = {".text": b"", ".data.rel.ro": b""}
    seconds: list[float] = []
    for _ in range(3):
        # CPU time of this process, and the best of three: what others do to the machine does not count.
        started = time.process_time()
        write_elf(plan, contents=contents, symbols=symbols, relocations=relocations, entry=text)
        seconds.append(time.process_time() - started)
    assert min(seconds) < 0.05


PLAN_REFUSALS: list[tuple[list[SectionSpec], str]] = [
    ([], "plan: expected at least one section of kind TEXT, got none"),
    ([TEXT, TEXT], "section .text: expected a name not yet taken"),
    ([TEXT, SectionSpec(".symtab", 8, 8, SectionKind.DATA)], "section .symtab: expected a name not yet taken"),
    ([TEXT, SectionSpec(BUILD_ID_SECTION, 8, 4, SectionKind.NOTE)], "section .note.gnu.build-id: expected a name not"),
    ([SectionSpec("text", 8, 8, SectionKind.TEXT)], "section 'text': expected a printable ASCII name that begins with"),
    ([SectionSpec(".text", 0, 8, SectionKind.TEXT)], "section .text: expected a size of at least 0x1, got 0x0"),
    ([SectionSpec(".text", 8, 24, SectionKind.TEXT)], "section .text: expected a power of two up to 0x1000"),
    ([SectionSpec(".text", 8, 0x2000, SectionKind.TEXT)], "as alignment, got 0x2000"),
    (
        [TEXT, SectionSpec(".note.x", 24, 8, SectionKind.NOTE)],
        "section .note.x: expected a note with size and alignment",
    ),
    ([TEXT, SectionSpec(".note.x", 23, 4, SectionKind.NOTE)], "got size 0x17 and alignment 0x4"),
]


@pytest.mark.parametrize(("sections", "sentence"), PLAN_REFUSALS)
def test_plan_refuses(sections: list[SectionSpec], sentence: str) -> None:
    with refusal(sentence):
        plan_dyn(sections=sections, relocation_count=0)
    with refusal(sentence):
        plan_exec(sections=sections)


def test_plan_dyn_refuses_a_generated_name() -> None:
    with refusal("section .dynamic: expected a name not yet taken"):
        plan_dyn(sections=[TEXT, SectionSpec(".dynamic", 8, 8, SectionKind.DATA)], relocation_count=0)


def test_plan_dyn_refuses_a_negative_count() -> None:
    with refusal("relocation count: expected 0 or more, got -0x1"):
        plan_dyn(sections=[TEXT], relocation_count=-1)


@pytest.mark.parametrize("base", [0, 0x8000, 0x20_0010, 1 << 32])
def test_plan_exec_refuses_a_base(base: int) -> None:
    with refusal(f"base: expected a page-aligned address from 0x100000 up to 4 GiB, got {base:#x}"):
        plan_exec(sections=[TEXT], base=base)


def test_plan_exec_refuses_relocated_constants() -> None:
    with refusal("section .data.rel.ro: kind RELRO needs relocations"):
        plan_exec(sections=[TEXT, SectionSpec(".data.rel.ro", 8, 8, SectionKind.RELRO)])


@pytest.mark.parametrize(
    "section",
    [
        SectionSpec(".multiboot2", 0x30, 4, SectionKind.RODATA),
        SectionSpec(".multiboot2", 0x9000, 8, SectionKind.RODATA),
        SectionSpec(".multiboot2", 0x30, 8, SectionKind.DATA),
    ],
)
def test_plan_exec_refuses_a_header_grub_would_not_find(section: SectionSpec) -> None:
    with refusal("section .multiboot2: expected alignment 0x8 and an end within file offset 0x8000"):
        plan_exec(sections=[SectionSpec(".text", 0x8000, 16, SectionKind.TEXT), section])


DYN = dyn_plan()
AT = DYN.addresses
GOOD = dyn_inputs(DYN)

WRITE_REFUSALS: list[tuple[dict[str, Any], str]] = [
    ({"entry": AT[".data"]}, f"entry: expected an address in .text 0x1000..0x1030, got {AT['.data']:#x}"),
    ({"entry": AT[".text"] + TEXT.size}, "entry: expected an address in .text"),
    ({"contents": {**GOOD["contents"], ".text": bytes(0x31)}}, "section .text: expected at most 0x30 bytes as planned"),
    ({"contents": {**GOOD["contents"], ".txet": b""}}, "section .txet: expected one of .note.gnu.build-id, .hash"),
    ({"contents": {**GOOD["contents"], ".bss": b"\1"}}, "section .bss: expected no content in zeroed memory, got 0x1"),
    ({"contents": {**GOOD["contents"], ".hash": b"\1"}}, "section .hash: expected no content, its bytes are made here"),
    ({"contents": {".text": b"\x90"}}, "section .rodata: expected up to 0x64 bytes of content, got none"),
    ({"relocations": []}, "relocations: expected 0x2 as planned, got 0x0"),
    (
        {"relocations": [(AT[".text"], 0), (AT[".data"], 0)]},
        "relocation at 0x1000: expected 8 bytes inside .data.rel.ro",
    ),
    ({"relocations": [(AT[".rodata"], 0), (AT[".data"], 0)]}, "expected 8 bytes inside .data.rel.ro, .data, got"),
    ({"relocations": [(AT[".bss"], 0), (AT[".data"], 0)]}, f"relocation at {AT['.bss']:#x}: expected 8 bytes inside"),
    ({"relocations": [(AT[".dynamic"], 0), (AT[".data"], 0)]}, f"relocation at {AT['.dynamic']:#x}: expected 8 bytes"),
    ({"relocations": [(AT[".data"] + 20, 0), (AT[".data"], 0)]}, "got an address outside"),
    (
        {"relocations": [(AT[".data"] + 4, 0), (AT[".data"] + 16, 0)]},
        "expected an address aligned to 0x8, got 0x4 more",
    ),
    ({"relocations": [(AT[".data"], 0), (AT[".data"], 8)]}, "expected one per field, got a second for the same field"),
    ({"relocations": [(AT[".data"], -1), (AT[".data"] + 8, 0)]}, "expected an addend from 0x0 to the image's end"),
    ({"relocations": [(AT[".data"], 1 << 21), (AT[".data"] + 8, 0)]}, "got 0x200000"),
    ({"symbols": [ElfSymbol("x", ".nope", 0, 0, SymbolType.STT_FUNC)]}, "section .nope: expected one of"),
    ({"symbols": [ElfSymbol("x", ".text", 0xFFF, 1, SymbolType.STT_FUNC)]}, "symbol x: expected a place inside .text"),
    ({"symbols": [ElfSymbol("x", ".text", 0x1000, 0x31, SymbolType.STT_FUNC)]}, "0x1000..0x1030, got 0x1000..0x1031"),
    (
        {"symbols": [ElfSymbol("x", ".text", 0x1010, -1, SymbolType.STT_FUNC)]},
        "symbol x: expected a place inside .text",
    ),
    ({"symbols": [ElfSymbol("", ".text", 0x1000, 1, SymbolType.STT_FUNC)]}, "symbol at 0x1000: expected a name"),
    (
        {"symbols": [ElfSymbol("x", ".text", 0x1000, 1, SymbolType.STT_FUNC)] * 2},
        "symbol x: expected one global symbol",
    ),
]


@pytest.mark.parametrize(("change", "sentence"), WRITE_REFUSALS)
def test_write_refuses(change: dict[str, Any], sentence: str) -> None:
    with refusal(sentence):
        write_elf(DYN, **{**GOOD, **change})


def test_a_fixed_image_takes_no_relocations() -> None:
    plan = exec_plan()
    with refusal("relocations: expected none in an ET_EXEC file, got 0x1"):
        write_elf(plan, **exec_inputs(plan), relocations=[(plan.addresses[".data"], 0)])


def test_multiboot1_magic_is_refused_where_qemu_would_see_it() -> None:
    plan = plan_exec(sections=[RODATA, PVH, MULTIBOOT2, TEXT, WRITABLE, BSS])
    inputs = exec_inputs(plan)
    inputs["contents"][".rodata"] = bytes(4) + 0x1BADB002.to_bytes(4, "little")
    where = plan.addresses[".rodata"] - plan.base + 4
    with refusal(f"expected no Multiboot 1 magic in the first 0x2000 bytes, got 0x1badb002 at {where:#x}"):
        write_elf(plan, **inputs)
