"""Pages as they must not be, and what has to come of them: an error sentence or FAULTED, in time, on that CPU alone.

Strategies give hypothesis command pages, status bytes and response targets; the checks run one example each on a
machine and leave it fit for the next. tests/boot calls them a few times, tests/campaign often. Here are those of
command pages; malformed_control.py has those of control pages, malformed_races.py those of changes under a command.
"""

import contextlib
import random
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hypothesis import strategies

from sidecar.layout import (
    MAX_REGISTERS,
    PAGE_SIZE,
    REQUEST_VECTOR,
    CommandError,
    CommandPage,
    CpuStatus,
    GetSetVpRegisterRequest,
    HvRegisterAssoc,
    HvStatus,
    RaiseKind,
    SidecarCommand,
)
from sidecar.layout.hv import TranslateGvaResponse
from sidecar.layout.run import RunEnd
from sidecar.layout.x86 import Icr
from sidecar.protocol.commands import Cpu
from sidecar.protocol.errors import CpuFaulted, SidecarCommandError
from sidecar.protocol.requests import raise_request
from sidecar.protocol.waiting import poll
from sidecar.qemu.session import Session
from tests.support import cpus
from tests.support.register_model import GET, MASK_64, NO_VP, NUMBERS, SET, Pairs, RegisterModel

DATA = slice(int(CommandPage.request_data), CommandPage.request_data + CommandPage.request_data.SIZE)
TIMES = slice(int(CommandPage.start_tsc), CommandPage.end_tsc + CommandPage.end_tsc.SIZE)
OF_A_GUEST = (
    SidecarCommand.RUN_VP, SidecarCommand.TRANSLATE_GVA, SidecarCommand.GET_VP_XSAVE, SidecarCommand.SET_VP_XSAVE,
)  # fmt: skip
"""What a CPU without a virtual processor answers with NO_VP."""
ENDLESS = (RaiseKind.SPIN, RaiseKind.WAIT_FOR_STOP, RaiseKind.MEASURE_GAPS)
FORBIDDEN = "RAISE: this machine was not started for tests"

# --- what hypothesis draws --------------------------------------------------------------------------------------------

u64 = strategies.integers(0, MASK_64)
u32 = strategies.integers(0, (1 << 32) - 1)
status_bytes = strategies.one_of(strategies.sampled_from(sorted(CpuStatus)), strategies.integers(0, 255))
commands = strategies.one_of(strategies.sampled_from(sorted(SidecarCommand)), strategies.integers(0, 0x200), u32)
raise_kinds = strategies.one_of(
    strategies.sampled_from([kind for kind in RaiseKind if kind not in ENDLESS]),
    u32.filter(lambda kind: kind not in ENDLESS),
)
raise_arguments = strategies.one_of(strategies.integers(0, 1024), u64)
response_targets = strategies.tuples(
    strategies.one_of(strategies.integers(0, 6), strategies.sampled_from([0xFF, 0xFFFF, 0xFFFFFFFF]), u32),
    strategies.one_of(strategies.integers(0, 0x1FF), u32),
)
"""x2APIC id and vector."""

registers = strategies.lists(
    strategies.tuples(
        strategies.one_of(strategies.sampled_from(NUMBERS), u32),
        strategies.one_of(strategies.just(0), strategies.integers(0, 0xFFF), u64, strategies.integers(0, 1 << 128)),
    ),
    max_size=MAX_REGISTERS,
)
counts = strategies.one_of(
    strategies.integers(1, MAX_REGISTERS), strategies.integers(0, 40), strategies.integers(0, 0xFFFF)
)
trust_levels = strategies.one_of(strategies.just(0), strategies.integers(0, 255))


@dataclass(frozen=True)
class Request:
    """The request data of GET and SET, often nearly right; count may lie, and beyond the entries there is noise."""

    count: int
    target_vtl: int
    entries: list[tuple[int, int]]
    noise: int

    def __bytes__(self) -> bytes:
        data = bytearray(random.Random(self.noise).randbytes(DATA.stop - DATA.start))
        struct.pack_into("<HB", data, int(GetSetVpRegisterRequest.count), self.count, self.target_vtl)
        for place, (number, value) in enumerate(self.entries):
            start = GetSetVpRegisterRequest.SIZE + place * HvRegisterAssoc.SIZE
            struct.pack_into("<I", data, start + HvRegisterAssoc.name, number)
            struct.pack_into("<QQ", data, start + HvRegisterAssoc.value, value & MASK_64, value >> 64 & MASK_64)
        return bytes(data)


@dataclass(frozen=True)
class Page:
    """A command page of noise, with a command and perhaps a request."""

    command: int
    sequence: int
    request: Request | None
    noise: int

    def __bytes__(self) -> bytes:
        page = bytearray(random.Random(self.noise).randbytes(PAGE_SIZE))
        struct.pack_into("<I", page, int(CommandPage.command), self.command)
        struct.pack_into("<Q", page, int(CommandPage.sequence), self.sequence)
        if self.request is not None:
            page[DATA] = bytes(self.request)
        return bytes(page)


requests = strategies.builds(Request, counts, trust_levels, registers, u32)
pages = strategies.builds(Page, commands, u64, strategies.none() | requests, u32)


# --- what every check needs -------------------------------------------------------------------------------------------


@contextlib.contextmanager
def undisturbed(others: Sequence[Cpu]) -> Iterator[None]:
    """Nothing that happens within is noticed by these CPUs, and they answer afterwards."""
    before = [_noticed(cpu) for cpu in others]
    yield
    assert [_noticed(cpu) for cpu in others] == before
    for cpu in others:
        cpus.assert_answers(cpu)


def _noticed(cpu: Cpu) -> tuple[object, ...]:
    counters = cpus.counters(cpu) | {"requests": 0}  # that of the last command may be late
    return cpu.status, cpus.arrivals(cpu), cpus.faults(cpu), counters, cpus.stray(cpu)


def force(cpu: Cpu, status: int) -> None:
    """Stores a status byte without asking anybody."""
    cpu.pages.control.cpu_status[cpu.numbers.index] = status


def request(session: Session, cpu: Cpu) -> None:
    cpus.interrupt(session, cpu, Icr.FIXED, REQUEST_VECTOR)


def recover(session: Session, cpu: Cpu) -> None:
    """Brings the CPU back through the trampoline, whatever its status byte says.

    A CPU that still looks makes FAULTED of a status it does not know. If it has stopped looking before, the driver
    does not touch the unknown byte, and whoever wrote it has to mend it.
    """
    request(session, cpu)
    if not poll(lambda: cpu.status in set(CpuStatus), 0.05):
        cpus.assert_halted_in(session, cpu, "halt_forever")
        force(cpu, CpuStatus.FAULTED)
    cpus.bring_back(cpu)


# --- command pages ----------------------------------------------------------------------------------------------------


def check_command_page(session: Session, cpu: Cpu, page: bytes) -> None:
    """The whole page afterwards is exactly what it must be, byte for byte but for the times. Machine without RAISE."""
    cpus.tidy(session)
    cpu.restart()
    memory = cpu.driver.command_memory(cpu.number)

    def fill() -> None:
        memory[:] = page

    with undisturbed(cpus.others(session, cpu)):
        cpu.driver.run(cpu.number, seconds=cpus.SECONDS, prepare=fill)
    after, model = bytearray(memory), RegisterModel()
    times = struct.unpack("<QQ", after[TIMES])
    assert times == tuple(sorted(times))
    expected = expected_page(model, page)
    expected[TIMES] = after[TIMES]
    assert after == expected
    assert cpu.get_registers(NUMBERS) == model.values


def expected_page(model: RegisterModel, page: bytes) -> bytearray:
    """What becomes of a command page on a machine that forbids RAISE, all but the times."""
    after = bytearray(page)
    (command,) = struct.unpack_from("<I", page, int(CommandPage.command))
    sentence = _answer(model, command, after)
    struct.pack_into("<I", after, int(CommandPage.command), SidecarCommand.NONE)
    after[int(CommandPage.has_error)] = sentence is not None
    start = int(CommandPage.completed_sequence)
    after[start : start + 8] = page[int(CommandPage.sequence) : CommandPage.sequence + 8]
    if sentence is not None:
        start, text = int(CommandPage.error), sentence.encode()
        after[start + CommandError.length] = len(text)
        after[start + CommandError.text : start + CommandError.text + len(text)] = text
    return after


def _answer(model: RegisterModel, command: int, page: bytearray) -> str | None:
    """The sentence for the command in a page; the page's request data become the answer's."""
    if command == SidecarCommand.NONE:
        return None
    if command == SidecarCommand.RUN_VP:
        struct.pack_into("<I", page, int(CommandPage.run.end), RunEnd.NONE)
        page[DATA.start] = 0  # no intercept
    if command == SidecarCommand.TRANSLATE_GVA:
        page[DATA.start : DATA.start + TranslateGvaResponse.SIZE] = bytes(TranslateGvaResponse.SIZE)
        struct.pack_into("<H", page, DATA.start + TranslateGvaResponse.status, HvStatus.INVALID_VP_STATE)
    if command in OF_A_GUEST:
        return f"command {command}: {NO_VP}"
    if command == SidecarCommand.RAISE:
        return FORBIDDEN
    if command not in (GET, SET):
        return f"command {command:#x} is not known; expected 0 to 4 or 0x100 to 0x102"
    data = page[DATA]
    pairs, count, target_vtl = decode(data)
    answer = model.answer(command, pairs, count=count, target_vtl=target_vtl)
    struct.pack_into("<H", data, int(GetSetVpRegisterRequest.status), answer.status)
    for place, value in enumerate(answer.values if command == GET else ()):
        start = GetSetVpRegisterRequest.SIZE + place * HvRegisterAssoc.SIZE
        struct.pack_into("<QQ", data, start + HvRegisterAssoc.value, value, 0)
    page[DATA] = data
    return answer.sentence


def decode(data: bytes | bytearray) -> tuple[Pairs, int, int]:
    """Entries, count and target_vtl of the register request in a page."""
    count, target_vtl = struct.unpack_from("<HB", data, int(GetSetVpRegisterRequest.count))
    pairs = []
    for place in range(min(count, MAX_REGISTERS)):
        start = GetSetVpRegisterRequest.SIZE + place * HvRegisterAssoc.SIZE
        (number,) = struct.unpack_from("<I", data, start + HvRegisterAssoc.name)
        low, high = struct.unpack_from("<QQ", data, start + HvRegisterAssoc.value)
        pairs.append((number, low | high << 64))
    return pairs, count, target_vtl


def check_raise(session: Session, cpu: Cpu, kind: int, argument: int) -> None:
    """RAISE with anything but an endless kind ends in time, with a sentence, a fault, or well."""
    cpus.tidy(session)
    with undisturbed(cpus.others(session, cpu)):
        outcome = outcome_of(cpu, SidecarCommand.RAISE, raise_request(kind, argument))
        if isinstance(outcome, SidecarCommandError):
            assert outcome.sentence == cpus.sentence(cpu)
            assert kind not in set(RaiseKind) or kind in (RaiseKind.VECTOR, RaiseKind.CORRUPT_PAGE_TABLE)
        elif isinstance(outcome, CpuFaulted):
            cpus.assert_halted_in(session, cpu, "halt_forever")
            cpu.restart()
        cpus.assert_answers(cpu)


def outcome_of(cpu: Cpu, command: int, data: bytes) -> SidecarCommandError | CpuFaulted | None:
    """The two ways in which a command may fail; every other one is an error of the test."""
    try:
        cpu.execute(command, data, seconds=cpus.SECONDS)
    except (SidecarCommandError, CpuFaulted) as failure:
        return failure
    return None
