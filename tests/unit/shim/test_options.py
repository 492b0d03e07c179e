"""The options of the command line, against a reading of them in Python; no line writes beyond its variables."""

import re
from dataclasses import dataclass, field

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sidecar.layout import MAX_CPUS
from sidecar.layout.linux_boot import LinuxBoot
from sidecar.shim.console import LINE_BYTES
from sidecar.shim.options import Option
from tests.support.emulator import Emulator
from tests.unit.shim.helpers import RAM, changed, fresh, notes, returned

MOST = LinuxBoot.COMMAND_LINE_BYTES - 1
LARGEST = 100_000
"""A number above it is none: the routine stops before it wraps."""


@dataclass
class Read:
    """What a command line means."""

    options: int = 0
    linux_cpus: set[int] = field(default_factory=set)
    phantom: int = 0
    notes: list[str] = field(default_factory=list)
    left: str = ""

    def word(self, word: str, rest: str) -> bool:
        """One word, whether it is the shim's; `rest` is the line from there on."""
        name, has_value, value = word.partition("=")
        match word:
            case "sidecar=on":
                self.options &= ~Option.OFF
            case "sidecar=off":
                self.options |= Option.OFF
            case "sidecar=log":
                self.options |= Option.LOG
            case "sidecar.tests":
                self.options |= Option.TESTS
            case "sidecar.fan_out":
                self.options |= Option.FAN_OUT
            case _ if has_value and name == "sidecar.linux_cpus":
                self.cpu_list(value, rest.partition("=")[2])
            case _ if has_value and name == "sidecar.phantom" and (number := whole_number(value)) is not None:
                self.options |= Option.PHANTOM
                self.phantom = number
            case _ if word.startswith("sidecar"):
                self.note(f"no option of the shim, left to Linux, at: {rest}")
                return False
            case _:
                return False
        return True

    def cpu_list(self, text: str, rest: str) -> None:
        for item in text.split(","):
            match = re.match(r"([0-9]++)(?:-([0-9]+)|(?!-))", item)
            first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, -1)
            in_range = first <= last < MAX_CPUS
            self.linux_cpus |= set(range(first, last + 1)) if in_range else set()
            if match is None or not in_range or match.end() < len(item):
                self.note(f"sidecar.linux_cpus: expected numbers and ranges below 2048 such as 1,4-7, got: {rest}")
                return

    def note(self, text: str) -> None:
        """As much of it as a line of the console holds."""
        self.notes.append(f"note: {text}"[: LINE_BYTES - 1].removeprefix("note: "))


def whole_number(text: str) -> int | None:
    match = re.fullmatch("[0-9]+", text)
    return int(match[0]) if match and int(match[0]) <= LARGEST else None


def in_python(line: str) -> Read:
    read = Read()

    def left(match: re.Match[str]) -> str:
        return " " * len(match[0]) if read.word(match[0], line[match.start() :]) else match[0]

    read.left = re.sub(r"[^\0-\x20]+", left, line[:MOST])
    return read


def by_the_shim(line: str) -> tuple[Emulator, Read]:
    shim = fresh()
    shim.write("command_line", line.encode("latin-1"))
    returned(shim, shim.call("read_options"))
    bits = int.from_bytes(shim.read("linux_cpus", MAX_CPUS // 8), "little")
    cpus = {number for number in range(MAX_CPUS) if bits >> number & 1}
    left = shim.read("command_line", len(line)).decode("latin-1")
    return shim, Read(shim.number("options", 4), cpus, shim.number("phantom_apic_id", 4), notes(shim), left)


NUMBER = st.integers(0, 2100).map(str) | st.sampled_from(["2047", "2048", "99999", "100001", "4294967296", "007", ""])
ITEM = NUMBER | st.tuples(NUMBER, NUMBER).map("-".join) | st.text("0123456789,-x", max_size=6)
LIST = st.lists(ITEM, max_size=6).map(",".join)
WORD = st.one_of(
    st.sampled_from(["sidecar=on", "sidecar=off", "sidecar=log", "sidecar.tests", "sidecar", "sidecar=", "sidecar.tes",
                     "sidecar.fan_out", "sidecar.testsx", "sidecar=offf", "quiet", "sidecar.linux_cpus",
                     "console=ttyS0", "xsidecar=off"]),
    LIST.map("sidecar.linux_cpus={}".format),
    NUMBER.map("sidecar.phantom={}".format),
    st.text(st.characters(min_codepoint=1, max_codepoint=255), max_size=12),
)  # fmt: skip
BLANK = st.sampled_from([" ", "  ", "\t", "\n "])
LINE = st.lists(st.tuples(WORD, BLANK).map("".join), max_size=8).map("".join)


@given(LINE)
@example("sidecar.linux_cpus=0-2047")
@example("sidecar.linux_cpus=2047,2048")
@example("sidecar.phantom=77x")
@example("sidecar.phantom=100000 sidecar.phantom=100001")
@example("sidecar.linux_cpus=1,2,")
@example("sidecar" + "x" * 2000)
def test_a_line_means_what_it_means_in_python(line: str) -> None:
    shim, read = by_the_shim(line)
    expected = in_python(line)
    assert (read.options, read.linux_cpus, read.phantom) == (expected.options, expected.linux_cpus, expected.phantom)
    assert read.left == expected.left
    assert shim.console.count("shim: note: ") == len(expected.notes)
    assert [text for text in expected.notes if text.isascii() and text.isprintable() and text not in read.notes] == []


@given(st.binary(max_size=MOST).map(lambda line: line.replace(b"\0", b" ")))
def test_no_line_writes_beyond_its_variables(line: bytes) -> None:
    shim = fresh()
    shim.write("command_line", line)
    returned(shim, shim.call("read_options"))
    assert changed(shim) <= {"command_line", "options", "linux_cpus", "phantom_apic_id"}
    assert shim.read("command_line", len(line)).decode("latin-1") == in_python(line.decode("latin-1")).left


@given(st.text("0123456789-,", max_size=30))
def test_a_list_of_digits_and_signs_is_read_or_named(text: str) -> None:
    shim = fresh()
    shim.write(RAM.start, text.encode() + b"\0")
    returned(shim, shim.call("read_cpu_list", rsi=RAM.start))
    expected = Read()
    expected.cpu_list(text, text)
    bits = int.from_bytes(shim.read("linux_cpus", MAX_CPUS // 8), "little")
    assert {number for number in range(MAX_CPUS) if bits >> number & 1} == expected.linux_cpus
    assert notes(shim) == expected.notes
    assert changed(shim) <= {"linux_cpus"}


@pytest.mark.parametrize(
    ("line", "options", "left"),
    [
        ("", Option(0), []),
        ("sidecar=off sidecar=on", Option(0), []),
        ("sidecar=on sidecar=off", Option.OFF, []),
        ("root=/dev/sda sidecar=log quiet", Option.LOG, ["root=/dev/sda", "quiet"]),
        ("sidecar.tests", Option.TESTS, []),
        ("sidecar.fan_out", Option.FAN_OUT, []),
        ("sidecar.phantom=77 sidecar.linux_cpus=1,3", Option.PHANTOM, []),
        ("sidecar.timeout_ms=100 sidecar.tests", Option.TESTS, ["sidecar.timeout_ms=100"]),
    ],
)
def test_words_have_their_bits_and_linux_the_rest(line: str, options: Option, left: list[str]) -> None:
    read = by_the_shim(line)[1]
    assert (read.options, read.left.split()) == (options, left)
