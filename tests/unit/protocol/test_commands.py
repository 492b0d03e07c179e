"""Typed commands: what they put into the page, how answers are checked, what errors say."""

import struct
from collections.abc import Iterator

import pytest

from sidecar.layout import VP_REGISTERS, CommandPage, RaiseKind, SidecarCommand
from sidecar.protocol.commands import Cpu, raise_request, register_request
from sidecar.protocol.driver import PageDriver
from sidecar.protocol.errors import CpuBusy, ProtocolError, SidecarCommandError
from sidecar.protocol.typed import sentence
from tests.support.simulated_cpu import UNKNOWN_COMMAND
from tests.support.simulated_sidecar import SimulatedSidecar


@pytest.fixture
def sidecar() -> Iterator[SimulatedSidecar]:
    with SimulatedSidecar((3,)) as simulated:
        yield simulated


@pytest.fixture
def cpu(sidecar: SimulatedSidecar) -> Cpu:
    return Cpu(PageDriver(sidecar), 1)


def test_sequence_numbers_count_on(sidecar: SimulatedSidecar, cpu: Cpu) -> None:
    for _ in range(3):
        cpu.none()
    Cpu(cpu.driver, 1).none()
    assert sidecar.cpus[1].executed == [1, 2, 3, 4]
    assert cpu.pages.command.completed_sequence == 4


def test_the_sequence_number_wraps(sidecar: SimulatedSidecar, cpu: Cpu) -> None:
    cpu.pages.command.sequence = 2**64 - 1
    cpu.none()
    assert sidecar.cpus[1].executed == [0]


def test_another_answer_is_a_protocol_error(sidecar: SimulatedSidecar, cpu: Cpu) -> None:
    sidecar.cpus[1].hold.clear()
    run = cpu.start(SidecarCommand.NONE)
    cpu.pages.command.sequence = 0x99
    sidecar.cpus[1].hold.set()
    with pytest.raises(ProtocolError, match=r"CPU 1 .*completed sequence 0x99, expected 0x1"):
        run.wait()


def test_registers_go_in_batches_of_31(sidecar: SimulatedSidecar, cpu: Cpu) -> None:
    names = [register.name for register in VP_REGISTERS]
    values = {name: 0x1000 + number for number, name in enumerate(names)}
    cpu.set_registers(values)
    assert cpu.get_registers(names) == values
    assert len(sidecar.cpus[1].executed) == 2 * -(-len(names) // 31)
    assert cpu.get_registers([]) == {}


def test_registers_by_number(cpu: Cpu) -> None:
    cpu.set_registers({0x50001: 5})
    names: list[str | int] = [0x50001, "HvX64RegisterDr1"]
    assert cpu.get_registers(names) == {0x50001: 5, "HvX64RegisterDr1": 5}


def test_an_unknown_register_name_names_the_known_ones(cpu: Cpu) -> None:
    with pytest.raises(ValueError, match=r"no register 'HvDr9'; there are HvRegisterPendingInterruption, "):
        cpu.get_registers(["HvDr9"])


def test_the_sidecars_sentence_is_in_the_error(cpu: Cpu) -> None:
    with pytest.raises(SidecarCommandError, match=rf"CPU 1 .*command 0x63 .*: {UNKNOWN_COMMAND}$") as error:
        cpu.execute(0x63)
    assert error.value.sentence == UNKNOWN_COMMAND
    with pytest.raises(SidecarCommandError, match=r"GET_VP_REGISTERS .*: count 32, expected 1 to 31"):
        cpu.execute(SidecarCommand.GET_VP_REGISTERS, register_request([], count=32))
    cpu.none()


def test_a_sentence_that_is_no_utf8_is_shown(cpu: Cpu) -> None:
    page = cpu.pages.command
    page.has_error, page.error.length, page.error.text = 1, 2, b"\xffx" + bytes(253)
    assert sentence(cpu.driver.command_memory(1)) == r"\xffx"


def test_a_second_user_is_told(cpu: Cpu) -> None:
    run = cpu.start(SidecarCommand.RAISE, raise_request(RaiseKind.WAIT_FOR_STOP))
    with pytest.raises(CpuBusy, match=r"CPU 1 .*executes a command of another thread, or one that was not waited for"):
        cpu.none()
    run.stop()
    run.wait()
    cpu.none()


def test_finished_and_wait_give_the_answer(cpu: Cpu) -> None:
    run = cpu.start(SidecarCommand.GET_VP_REGISTERS, register_request([(0x50000, 0)]))
    assert [ended.cpu for ended in cpu.driver.finished(seconds=5)] == [1]
    (count,) = struct.unpack_from("<H", run.wait())
    assert count == 1
    cpu.none()


def test_a_vector_that_does_no_harm(cpu: Cpu) -> None:
    cpu.raise_fault(RaiseKind.VECTOR, 0x40)


def test_a_request_that_is_too_long(cpu: Cpu) -> None:
    with pytest.raises(ValueError, match="the request has 1025 bytes, the page takes 1024"):
        cpu.execute(SidecarCommand.NONE, bytes(CommandPage.request_data.SIZE + 1))
    cpu.none()


def test_repr_shows_numbers_and_state(cpu: Cpu) -> None:
    assert repr(cpu) == "<CPU 1 (APIC id 0x101, node 0, index 1), AVAIL>"
