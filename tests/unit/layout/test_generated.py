"""The generated files: fresh, accepted by gcc with an assertion per field, and computing what Python computes."""

import subprocess
from pathlib import Path

import pytest

from sidecar.layout import control, registry
from sidecar.layout.address_map import PrivatePage, SharedPage, private_pa, required_memory, shared_pa
from sidecar.layout.c_header import assertions, c_name, c_struct, header
from sidecar.layout.command import VP_REGISTERS
from sidecar.layout.diagnostics import BootPhase
from sidecar.layout.document import document
from sidecar.layout.enum_text import member_docs
from sidecar.layout.generate import REMEDY, REPOSITORY, files
from sidecar.layout.params import CpuPolicy

WARNINGS = ("-Wall", "-Wextra", "-Werror")
DIALECTS = {
    "user space": ("-std=c11", "-Wpedantic"),
    "Linux kernel": (
        "-std=gnu11", "-ffreestanding", "-fno-strict-aliasing", "-fno-common", "-fshort-wchar", "-fno-pie",
        "-mcmodel=kernel", "-mno-red-zone", "-mno-sse", "-Wdeclaration-after-statement", "-Wstrict-prototypes", "-Wvla",
    ),
}


@pytest.mark.parametrize("path", files(), ids=lambda path: path.name)
def test_committed_file_is_fresh(path: Path) -> None:
    shown = path.relative_to(REPOSITORY)
    assert path.exists(), f"{shown} is missing: {REMEDY}"
    assert path.read_text() == files()[path], f"{shown} is not what layout/ says now: {REMEDY}"


def compile_c(tmp_path: Path, text: str, *options: str) -> Path:
    source, program = tmp_path / "test.c", tmp_path / "test.out"
    source.write_text(text)
    command = ["gcc", *WARNINGS, *options, f"-I{REPOSITORY / 'driver'}", str(source), "-o", str(program)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stderr}"
    return program


@pytest.mark.needs("gcc")
@pytest.mark.parametrize("dialect", DIALECTS)
def test_gcc_agrees_on_every_offset_and_size(tmp_path: Path, dialect: str) -> None:
    text = assertions()
    assert text.count("offsetof") == 2 * sum(len(list(layout.leaves())) for layout in registry.SHARED)
    compile_c(tmp_path, text, *DIALECTS[dialect], "-c")


@pytest.mark.needs("gcc")
def test_the_assertions_can_fail(tmp_path: Path) -> None:
    text = assertions().replace("offsetof(struct sidecar_control_page, index) == 0x0", "0x4 == 0x0", 1)
    with pytest.raises(AssertionError, match="sidecar_control_page, index"):
        compile_c(tmp_path, text, "-std=c11", "-c")


@pytest.mark.needs("gcc")
def test_ioctl_numbers_are_those_of_the_systems_macros(tmp_path: Path) -> None:
    compile_c(tmp_path, """
        #include <sys/ioctl.h>
        #include "sidecar_abi.h"
        struct info { __u32 base_cpu, cpu_count, per_cpu_shmem; };
        _Static_assert(SIDECAR_IOCTL_START == _IO(0xB8, 0xF0), "START");
        _Static_assert(SIDECAR_IOCTL_STOP == _IO(0xB8, 0xF1), "STOP");
        _Static_assert(SIDECAR_IOCTL_RUN == _IO(0xB8, 0xF2), "RUN");
        _Static_assert(SIDECAR_IOCTL_INFO == _IOR(0xB8, 0xF3, struct info), "INFO");
        _Static_assert(SIDECAR_IOCTL_CLAIM == _IO(0xB8, 0xF4), "CLAIM");
        _Static_assert(SIDECAR_IOCTL_RELEASE == _IO(0xB8, 0xF5), "RELEASE");
        _Static_assert(SIDECAR_IOCTL_RESTART == _IO(0xB8, 0xF6), "RESTART");
    """, "-std=gnu11", "-c")


PROGRAM = """
#include <stdio.h>
#include "sidecar_abi.h"

int main(void)
{
    for (unsigned int count = 2; count <= 64; count++) {
        printf("%llx", sidecar_required_memory(count));
        for (int page = SIDECAR_SHARED_PAGE_COMMAND; page <= SIDECAR_SHARED_PAGE_REGISTER; page++)
            printf(" %llx", sidecar_shared_pa(BASE, count - 1, page));
        for (int page = SIDECAR_PRIVATE_PAGE_PML4; page <= SIDECAR_PRIVATE_PAGE_LOG; page++)
            printf(" %llx", sidecar_private_pa(BASE, count, count - 1, page));
        printf("\\n");
    }
    for (int old = 0; old < 8; old++)
        for (int new = 0; new < 8; new++)
            for (int party = 0; party < 3; party++)
                if (sidecar_cpu_transition_allowed(old, new, party))
                    printf("%d %d %d\\n", old, new, party);
    return 0;
}
"""


@pytest.mark.needs("gcc")
def test_c_computes_what_python_computes(tmp_path: Path) -> None:
    base = 0x7_C000_0000
    program = compile_c(tmp_path, PROGRAM, "-std=gnu11", f"-DBASE={base:#x}ULL")
    lines = subprocess.run([program], capture_output=True, text=True, check=True, timeout=60).stdout.splitlines()
    memory = [
        " ".join(f"{value:x}" for value in (
            required_memory(count),
            *(shared_pa(base, count - 1, page) for page in SharedPage),
            *(private_pa(base, count, count - 1, page) for page in PrivatePage),
        ))
        for count in range(2, 65)
    ]
    moves = sorted(f"{row.old} {row.new} {row.party}" for row in control.TRANSITIONS)
    assert lines[: len(memory)] == memory
    assert sorted(lines[len(memory) :]) == moves


def test_names() -> None:
    assert c_name("CpuContextX64") == "sidecar_cpu_context_x64"
    assert c_name("SidecarParams") == "sidecar_params"
    assert len({c_name(layout.NAME) for layout in registry.SHARED}) == len(registry.SHARED)


def test_header_has_everything_that_is_shared() -> None:
    text = header()
    for layout in registry.SHARED:
        assert c_struct(layout).replace("        ", "\t") in text
    for name in registry.CONSTANTS:
        assert f"#define SIDECAR_{name} " in text
    assert f"#define SIDECAR_ABI_HASH {registry.abi_hash():#018x}ULL\n" in text
    assert text.count("        ") == text.count("\t        "), "only alignment after tabs has eight spaces"


def test_member_sentences_are_read_from_the_source() -> None:
    docs = member_docs(BootPhase)
    assert list(docs) == [phase.name for phase in BootPhase]
    assert member_docs(CpuPolicy) == {}


def test_document_has_every_layout_enumeration_and_register() -> None:
    text = document()
    for layout in registry.ALL:
        assert f"### `{layout.NAME}`, {layout.SIZE:#x} bytes" in text
    for kind in registry.ENUMS:
        assert f"### `{kind.__name__}`" in text
    for register in VP_REGISTERS:
        assert f"| {register.number:#x} | `{register.name}` | {register.reset:#x} |" in text
    assert text.count("sidecar, on the CPU itself") == sum(row.party == 1 for row in control.TRANSITIONS)


def test_the_hash_ignores_sentences_and_sees_names(monkeypatch: pytest.MonkeyPatch) -> None:
    before = registry.abi_hash()
    registry.abi_hash.cache_clear()
    monkeypatch.setattr(registry, "SHARED", registry.SHARED[:-1])
    assert registry.abi_hash() != before
    registry.abi_hash.cache_clear()
    monkeypatch.undo()
    assert registry.abi_hash() == before
