"""Instructions that were noted: told apart by CPU and operation, and without the rounds of a loop that waits."""

import struct
from pathlib import Path

import pytest

from sidecar.bench.dispatch import Taken, parse, usual
from sidecar.bench.programs import NoSource, compile_program
from sidecar.bench.trace import SOURCE, Counted, Trace, count, decode, without_waiting

BEGIN, END = 0x100, 0x200
KERNEL = 0xFFFFFFFF81234567


def operation(here: list[int], there: list[int], after: list[int]) -> list[tuple[int, int]]:
    """CPU 0 asks, CPU 1 answers; then both go on."""
    inside = [(0, BEGIN), *((0, one) for one in here), *((1, one) for one in there), (0, END)]
    return [*inside, (0, 1), (1, 2), (2, 3), *((1, one) for one in after)]


def test_what_belongs_to_an_operation() -> None:
    noted = [*operation([10, 11], [20, 21, 22], [23]), *operation([10], [20], []), (0, BEGIN)]
    assert count([(0, 7), (1, 8), *noted], begin=BEGIN, end=END, here=0, there=1) == [Counted(2, 5), Counted(1, 2)]


def test_the_last_one_is_left_out() -> None:
    assert count(operation([10], [20], []), begin=BEGIN, end=END, here=0, there=1) == []


def test_waiting_counts_once_but_an_interrupt_in_it_counts() -> None:
    loop = [50, 51, 52]
    assert without_waiting([1, 2, *loop, 3]) == 6
    assert without_waiting([1, 2, *loop * 40, 3]) == 6
    with_a_pause = [*loop, 60, 61]
    assert without_waiting([1, 2, *[*with_a_pause, *loop * 31] * 3, 3]) == 6
    interrupt = list(range(1000, 1300))
    assert without_waiting([1, 2, *loop * 20, *interrupt, *loop * 20, 3]) == 309
    assert without_waiting([1, 2, *loop * 5, 3]) == 18
    assert without_waiting([]) == 0


def test_addresses_of_the_kernel_are_whole() -> None:
    low = (1 << 56) - 1
    assert list(decode(struct.pack("<2Q", 3 << 56 | KERNEL & low, 0x401000))) == [(3, KERNEL), (0, 0x401000)]


@pytest.mark.needs("gcc")
def test_the_plugin_names_a_version_that_qemu_knows(tmp_path: Path) -> None:
    trace = Trace(tmp_path)
    assert f"notes={tmp_path / 'notes'}" in trace.arguments[1]
    library = (tmp_path / "trace_plugin.so").read_bytes()
    assert b"qemu_plugin_install" in library
    assert "EXPORTED int qemu_plugin_version = 2;" in SOURCE.read_text()
    assert list(trace.executed()) == []


@pytest.mark.needs("gcc")
def test_a_program_that_does_not_compile(tmp_path: Path) -> None:
    source = tmp_path / "bad.c"
    source.write_text("int main(void) { return nothing; }\n")
    with pytest.raises(NoSource, match=r"(?s)bad\.c does not compile: .*nothing"):
        compile_program(source, tmp_path / "bad")


def test_the_line_of_times() -> None:
    assert parse("1 2 3 4 5\n") == Taken(1, 2, 3, 4, 5)
    with pytest.raises(ValueError, match="instead of five times"):
        parse("Killed\n")


def test_the_usual_number_is_met_by_no_interrupt() -> None:
    assert usual([317, 317, 318, 5000, 6000, 7000, 20000, 30000]) == 318
    assert usual([7]) == 7
