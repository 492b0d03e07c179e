"""The driver's sources: licence, size, style, and that what they show is documented."""

import re
from pathlib import Path

import pytest

from sidecar.qemu.linux.module import module_name

ROOT = Path(__file__).resolve().parents[2]
DRIVER = ROOT / "driver"
SOURCES = sorted(DRIVER.glob("*.[ch]"))
GENERATED = "sidecar_abi.h"
LONGEST_FILE = 350
LONGEST_LINE = 100


def own_sources() -> list[Path]:
    return [source for source in SOURCES if source.name != GENERATED]


def code_lines(source: Path) -> list[str]:
    """The lines with their comments and strings blanked."""
    text = re.sub(r"/\*.*?\*/", lambda found: re.sub(r"[^\n]", " ", found[0]), source.read_text(), flags=re.DOTALL)
    return re.sub(r'"(\\.|[^"\\\n])*"', '""', text).splitlines()


@pytest.mark.parametrize("source", own_sources(), ids=lambda source: source.name)
class TestSource:
    def test_the_licence_stands_first_and_then_what_it_is(self, source: Path) -> None:
        first, second = source.read_text().splitlines()[:2]
        assert re.fullmatch(r"(// |/\* )SPDX-License-Identifier: MIT OR GPL-2.0( \*/)?", first)
        assert second == "/*"

    def test_it_is_of_a_size_to_be_read(self, source: Path) -> None:
        lines = source.read_text().splitlines()
        assert len(lines) <= LONGEST_FILE
        sentences = ("pr_err(", '"', "MODULE_PARM_DESC(")
        long = [line for line in lines if len(line.expandtabs(8)) > LONGEST_LINE]
        assert [line for line in long if not any(part in line for part in sentences)] == []

    def test_it_has_the_kernels_style(self, source: Path) -> None:
        """What checkpatch looks for first: tabs, no blanks at the end, no // comments, braces where functions begin."""
        text = source.read_text()
        assert not re.search(r"[ \t]$", text, re.MULTILINE)
        assert not re.search(r"^ {8}", text, re.MULTILINE)
        assert text.endswith("\n")
        assert not text.endswith("\n\n")
        assert "\n\n\n" not in text
        code = "\n".join(code_lines(source)[1:])
        assert "//" not in code
        assert not re.search(r"^\w[^;{}()]*\([^;{}]*\) \{$", code, re.MULTILINE)
        assert not re.search(r"\b(if|for|while|switch)\(", code)
        assert not re.search(r"\b(BUG|BUG_ON|panic)\(", code)

    def test_locked_operations_keep_their_prefix(self, source: Path) -> None:
        """A kernel that was booted with maxcpus=1 patches `lock` out of what has it by LOCK_PREFIX: the sidecar's CPUs
        are not among those it counts. Ref: Linux, arch/x86/kernel/alternative.c.
        """
        code = "\n".join(code_lines(source))
        assert not re.search(r"\b(cmpxchg|try_cmpxchg|xadd|(set|clear|change)_bit|test_and_\w+_bit)\w*\(", code)

    def test_our_header_comes_first(self, source: Path) -> None:
        """It says how messages begin, which must be known before the kernel's headers are read."""
        if source.suffix == ".c":
            assert re.findall(r"^#include .*$", source.read_text(), re.MULTILINE)[0] == '#include "sidecar.h"'


def test_every_source_is_built() -> None:
    kbuild = (DRIVER / "Kbuild").read_text().replace("\\\n", " ")
    (objects,) = re.findall(r"^sidecar-y := (.*)$", kbuild, re.MULTILINE)
    assert {Path(name).stem for name in objects.split()} == {source.stem for source in SOURCES if source.suffix == ".c"}
    assert module_name(DRIVER) == "sidecar"
    assert 'MODULE_LICENSE("Dual MIT/GPL")' in (DRIVER / "main.c").read_text()


def test_the_parameters_and_the_folder_are_documented() -> None:
    guide = (ROOT / "docs" / "driver.md").read_text()
    main, sysfs = (DRIVER / "main.c").read_text(), (DRIVER / "sysfs.c").read_text()
    names = re.findall(r"^(?:CPU|NODE)_ATTRIBUTE\((\w+),", sysfs, re.MULTILINE)
    names += re.findall(r"^static (?:struct kobj_attribute cpu_\w+ = __ATTR_RO|BIN_ATTR)\((\w+)", sysfs, re.MULTILINE)
    names += re.findall(r"^module_param_\w+\((\w+),", main, re.MULTILINE)
    assert len(names) >= 27
    assert [name for name in names if f"`{name}`" not in guide] == []
