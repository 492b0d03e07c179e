"""GET and SET of the virtual processor's registers, judged by the layouts' table and by QEMU's view of the CPU."""

import struct
from pathlib import Path

import hypothesis
import pytest
from hypothesis import strategies

from sidecar.layout import MAX_REGISTERS, VP_REGISTERS, GetSetVpRegisterRequest, HvRegisterAssoc, HvStatus, RaiseKind
from sidecar.layout.command import VpRegister
from sidecar.protocol.commands import Cpu
from sidecar.protocol.errors import SidecarCommandError
from sidecar.protocol.requests import register_request
from sidecar.qemu.session import Session
from tests.support import cpus
from tests.support.register_model import GET, NUMBERS, READ_ONLY, SET, TABLE, VP_NUMBERS, WRITABLE, Pairs, RegisterModel

RESET = {register.number: register.reset for register in VP_REGISTERS}
DR0, DR6, DR7, MTRR_CAP, DEF_TYPE = 0x50000, 0x50004, 0x50005, 0x8000D, 0x8000E
UNKNOWN = [0, 1, 4, 0x4FFFF, 0x50006, 0x8000F, 0x80018, 0x8007C, 0x1050000, 0xFFFFFFFF]

every_writable = pytest.mark.parametrize(
    "register", [TABLE[number] for number in WRITABLE], ids=lambda register: register.name
)


@pytest.fixture
def cpu(session: Session) -> Cpu:
    """A CPU whose registers have their reset values."""
    session.cpus[1].restart()
    return session.cpus[1]


def all_of(cpu: Cpu) -> dict[int, int]:
    return cpu.get_registers(NUMBERS, seconds=cpus.SECONDS)


def refusal(cpu: Cpu, command: int, request: bytes) -> tuple[str, int]:
    """The sentence and the status of a command that is refused."""
    with pytest.raises(SidecarCommandError) as caught:
        cpu.execute(command, request, seconds=cpus.SECONDS)
    assert caught.value.sentence == cpus.sentence(cpu)
    data = bytes(cpu.pages.command.request_data)
    (status,) = struct.unpack_from("<H", data, int(GetSetVpRegisterRequest.status))
    return caught.value.sentence, status


# --- values -----------------------------------------------------------------------------------------------------------


def test_reset_values_after_the_first_arrival(run_directory: Path) -> None:
    with Session(smp=3) as session:
        for cpu in session.cpus.values():
            assert all_of(cpu) == RESET


def test_reset_values_after_a_restart(cpu: Cpu) -> None:
    cpu.set_registers({number: TABLE[number].writable for number in WRITABLE})
    assert all_of(cpu) != RESET
    cpu.restart()
    assert all_of(cpu) == RESET


def test_reset_values_after_a_fault_and_a_return_from_linux(cpu: Cpu) -> None:
    cpu.set_registers({DR0: 1})
    cpus.fault_of(cpu, RaiseKind.INVALID_OPCODE)
    cpu.restart()
    assert all_of(cpu) == RESET
    cpu.set_registers({DR0: 1})
    cpu.remove()
    cpu.give_back()
    assert all_of(cpu) == RESET


@every_writable
def test_what_is_set_is_read(cpu: Cpu, register: VpRegister) -> None:
    """All writable bits, none, and each alone; no other register moves."""
    values = [register.writable, 0, *(1 << bit for bit in range(64) if register.writable >> bit & 1)]
    for value in values:
        cpu.set_registers({register.number: value})
        assert all_of(cpu) == RESET | {register.number: value | register.reset}


@every_writable
def test_bits_that_are_not_writable_are_refused(cpu: Cpu, register: VpRegister) -> None:
    for bit in (bit for bit in range(64) if not register.writable >> bit & 1):
        sentence, status = refusal(cpu, SET, register_request([(register.number, 1 << bit)]))
        assert sentence == f"command 3: register {register.number:#x}: bits {1 << bit:#x} must be 0"
        assert status == HvStatus.INVALID_REGISTER_VALUE
    assert all_of(cpu) == RESET


@every_writable
@pytest.mark.parametrize("high", [1, 1 << 63, (1 << 64) - 1])
def test_the_high_half_must_be_zero(cpu: Cpu, register: VpRegister, high: int) -> None:
    sentence, status = refusal(cpu, SET, register_request([(register.number, high << 64)]))
    assert sentence == (
        f"command 3: register {register.number:#x} has 64 bits, its high half must be 0 and is {high:#x}"
    )
    assert status == HvStatus.INVALID_REGISTER_VALUE
    assert all_of(cpu) == RESET


@pytest.mark.parametrize("number", READ_ONLY)
@pytest.mark.parametrize("value", [0, 1, 0x508, 1 << 64])
def test_read_only_registers(cpu: Cpu, number: int, value: int) -> None:
    assert refusal(cpu, SET, register_request([(number, value)])) == (
        f"command 3: register {number:#x} is read-only", HvStatus.INVALID_REGISTER_VALUE
    )
    assert all_of(cpu) == RESET


@pytest.mark.parametrize("number", UNKNOWN)
@pytest.mark.parametrize("command", [GET, SET])
def test_unknown_registers(cpu: Cpu, command: int, number: int) -> None:
    assert refusal(cpu, command, register_request([(number, 0)])) == (
        f"command {command}: register {number:#x} is not known", HvStatus.INVALID_PARAMETER
    )
    assert all_of(cpu) == RESET


@pytest.mark.parametrize("number", VP_NUMBERS)
@pytest.mark.parametrize("command", [GET, SET])
def test_registers_that_need_a_virtual_processor(cpu: Cpu, command: int, number: int) -> None:
    assert refusal(cpu, command, register_request([(number, 0)])) == (
        f"command {command}: this CPU was given no virtual processor", HvStatus.INVALID_VP_STATE
    )
    assert all_of(cpu) == RESET


def test_get_clears_the_high_half_and_keeps_the_names(cpu: Cpu) -> None:
    request = register_request([(number, (1 << 128) - 1) for number in NUMBERS[:MAX_REGISTERS]])
    answer = cpu.execute(GET, request, seconds=cpus.SECONDS)
    for place, number in enumerate(NUMBERS[:MAX_REGISTERS]):
        start = GetSetVpRegisterRequest.SIZE + place * HvRegisterAssoc.SIZE
        entry = HvRegisterAssoc.parse(answer[start : start + HvRegisterAssoc.SIZE])
        assert (entry.name, entry.value, entry.value_high) == (number, RESET[number], 0)


# --- how many ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [GET, SET])
def test_as_many_as_one_command_takes(cpu: Cpu, command: int) -> None:
    pairs = [(number, TABLE[number].writable) for number in WRITABLE[:MAX_REGISTERS]]
    assert len(pairs) == MAX_REGISTERS == 31
    cpu.execute(command, register_request(pairs), seconds=cpus.SECONDS)
    expected = RESET if command == GET else RESET | {number: value | RESET[number] for number, value in pairs}
    assert all_of(cpu) == expected


@pytest.mark.parametrize("count", [0, 32, 33, 255, 256, 0x8000, 0xFFFF])
@pytest.mark.parametrize("command", [GET, SET])
def test_none_and_too_many(cpu: Cpu, command: int, count: int) -> None:
    request = register_request([(DR0, 1)] * MAX_REGISTERS, count=count)
    assert refusal(cpu, command, request) == (
        f"command {command}: count {count}, expected 1 to 31", HvStatus.INVALID_PARAMETER
    )
    assert all_of(cpu) == RESET


@pytest.mark.parametrize("target_vtl", [1, 2, 0x10, 0xFF])
@pytest.mark.parametrize("command", [GET, SET])
def test_another_trust_level(cpu: Cpu, command: int, target_vtl: int) -> None:
    request = register_request([(DR0, 1)], target_vtl=target_vtl)
    assert refusal(cpu, command, request) == (
        f"command {command}: target_vtl {target_vtl}, expected 0", HvStatus.INVALID_PARAMETER
    )
    assert all_of(cpu) == RESET


def test_the_first_bad_register_ends_the_command(cpu: Cpu) -> None:
    refusal(cpu, SET, register_request([(DR0, 7), (DR7, 1 << 32), (DR0 + 1, 8)]))
    assert all_of(cpu) == RESET | {DR0: 7}


def test_the_last_of_the_same_name_wins(cpu: Cpu) -> None:
    cpu.execute(SET, register_request([(DR0, value) for value in range(MAX_REGISTERS)]), seconds=cpus.SECONDS)
    assert all_of(cpu) == RESET | {DR0: MAX_REGISTERS - 1}


# --- whose state it is ------------------------------------------------------------------------------------------------


def test_each_cpu_has_its_own(session: Session) -> None:
    for number, cpu in session.cpus.items():
        cpu.set_registers({DR0: number, DEF_TYPE: 0x800 + number})
    for number, cpu in session.cpus.items():
        assert cpu.get_registers([DR0, DEF_TYPE]) == {DR0: number, DEF_TYPE: 0x800 + number}


def test_the_physical_debug_registers_stay(session: Session, cpu: Cpu) -> None:
    names = [f"DR{number}" for number in (0, 1, 2, 3, 6, 7)]
    before = session.machine.registers(cpu.number).values
    cpu.set_registers({DR0 + number: 0xFFFF_8000_0000_1000 + number for number in range(4)} | {DR6: 0xF, DR7: 0xFF})
    after = session.machine.registers(cpu.number).values
    assert [after[name] for name in names] == [before[name] for name in names] == [0, 0, 0, 0, 0xFFFF0FF0, 0x400]


# --- anything ---------------------------------------------------------------------------------------------------------

names = strategies.one_of(strategies.sampled_from((*NUMBERS, *VP_NUMBERS)), strategies.integers(0, (1 << 32) - 1))
values = strategies.one_of(
    strategies.integers(0, 0xFF),
    strategies.integers(0, (1 << 64) - 1),
    strategies.integers(0, (1 << 128) - 1),
    strategies.sampled_from([TABLE[number].writable for number in WRITABLE]),
)
pairs = strategies.lists(strategies.tuples(names, values), max_size=MAX_REGISTERS)
commands = strategies.tuples(strategies.sampled_from([GET, SET]), pairs)


@hypothesis.settings(max_examples=100)
@hypothesis.given(sequence=strategies.lists(commands, max_size=5))
def test_any_sequence_of_commands(machine: Session, sequence: list[tuple[int, list[tuple[int, int]]]]) -> None:
    """Kernel and model agree about every answer, and in the end about every register."""
    cpu, model = machine.cpus[2], RegisterModel()
    cpu.set_registers({number: RESET[number] for number in WRITABLE})
    for command, pairs in sequence:
        compare(cpu, model, command, pairs)
    assert all_of(cpu) == model.values


def compare(cpu: Cpu, model: RegisterModel, command: int, pairs: Pairs) -> None:
    expected = model.answer(command, pairs)
    if expected.sentence is not None:
        assert refusal(cpu, command, register_request(pairs)) == (expected.sentence, expected.status)
        return
    answer = cpu.execute(command, register_request(pairs), seconds=cpus.SECONDS)
    starts = range(GetSetVpRegisterRequest.SIZE + HvRegisterAssoc.value, len(answer), HvRegisterAssoc.SIZE)
    got = [int.from_bytes(answer[start : start + 16], "little") for start in starts[: len(pairs)]]
    assert got == expected.values
