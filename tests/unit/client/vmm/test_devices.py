"""The UART and the debug-exit port, register by register."""

from __future__ import annotations

import pytest

from sidecar.client.vmm import bus
from sidecar.client.vmm.answers import Device, Stop
from sidecar.client.vmm.devices import debug_exit, uart
from sidecar.client.vmm.devices.debug_exit import DebugExit
from sidecar.client.vmm.devices.uart import Uart
from sidecar.client.vmm.ranges import ELSEWHERE, MOST_COUNTED, Ranges

DATA, ENABLE, IDENTITY, LINE, MODEM, STATUS, MODEM_STATUS, SCRATCH = range(8)


@pytest.mark.parametrize(("value", "status"), [(0, 1), (1, 3), (0x10, 0x21), (0x7F, 0xFF), (0x80, 1)])
def test_debug_exit(value: int, status: int) -> None:
    answer = DebugExit().write(0, 1, value)
    assert isinstance(answer, Stop)
    assert answer.status == status
    assert DebugExit().read(0, 1) == 0


def test_what_is_sent_is_out_at_once() -> None:
    sent: list[bytes] = []
    port = Uart(sent.append)
    for byte in b"hello":
        port.write(DATA, 1, byte)
    assert b"".join(sent) == b"hello"
    assert port.read(STATUS, 1) == 0x60


def test_the_divisor_is_behind_dlab() -> None:
    sent: list[bytes] = []
    port = Uart(sent.append)
    port.write(LINE, 1, 0x83)
    port.write(DATA, 2, 0x0123)
    assert (port.read(DATA, 1), port.read(ENABLE, 1), sent) == (0x23, 1, [])
    port.write(LINE, 1, 0x03)
    port.write(ENABLE, 1, 0xFF)
    assert (port.read(ENABLE, 1), port.read(LINE, 1)) == (0x0F, 3)
    port.write(SCRATCH, 1, 0x5A)
    assert port.read(SCRATCH, 1) == 0x5A


def test_what_comes_in_is_read_in_order() -> None:
    port = Uart(lambda data: None)
    port.receive(b"ab")
    assert port.read(STATUS, 1) == 0x61
    assert [port.read(DATA, 1) for _ in range(3)] == [ord("a"), ord("b"), 0]
    assert port.read(STATUS, 1) == 0x60
    port.receive(b"cd")
    port.write(IDENTITY, 1, 0x03)  # clears the receiver's FIFO
    assert (port.read(STATUS, 1), port.read(IDENTITY, 1)) == (0x60, 0xC1)


def test_interrupts() -> None:
    levels: list[bool] = []
    port = Uart(lambda data: None, levels.append)
    port.receive(b"x")
    port.write(ENABLE, 1, 1)
    assert levels == []  # OUT2 is off
    port.write(MODEM, 1, 8)
    assert (levels, port.read(IDENTITY, 1)) == ([True], 4)
    port.read(DATA, 1)
    assert (levels, port.read(IDENTITY, 1)) == ([True, False], 1)
    port.write(ENABLE, 1, 2)
    assert (levels[-1], port.read(IDENTITY, 1), levels[-1], port.read(IDENTITY, 1)) == (True, 2, False, 1)
    port.write(DATA, 1, 0)
    assert levels[-1] is True


def test_loopback() -> None:
    sent: list[bytes] = []
    port = Uart(sent.append)
    port.write(MODEM, 1, 0x1A)
    port.write(DATA, 1, 0xAE)
    assert (port.read(DATA, 1), sent, port.read(MODEM_STATUS, 1)) == (0xAE, [], 0x90)
    for _ in range(2):
        port.write(DATA, 1, 1)
    assert port.read(STATUS, 1) == 0x63
    assert port.read(STATUS, 1) == 0x61
    port.write(MODEM, 1, 0)
    assert port.read(MODEM_STATUS, 1) == 0xB0


def test_wide_accesses_reach_the_next_registers() -> None:
    ports: Ranges[Device] = Ranges("port")
    ports.add(uart.PORTS, Uart(lambda data: None))
    assert bus.write(ports, 0x3FB, 4, 0x00_00_08_03) is None
    assert bus.read(ports, 0x3FA, 4) == 0x60_08_03_01
    assert bus.read(ports, 0x3FE, 4) == 0xFFFF_00B0
    assert ports.unclaimed == {0x400: 1, 0x401: 1}


# --- ranges ----------------------------------------------------------------------------------------------------------


def test_ranges() -> None:
    ports: Ranges[str] = Ranges("port")
    ports.add(range(16, 32), "a")
    ports.add(range(8, 16), "b")
    ports.add(range(64, 65), "c")
    found = [(number, claim.owner if (claim := ports.find(number)) else None) for number in (7, 8, 15, 16, 31, 32, 64)]
    assert found == [(7, None), (8, "b"), (15, "b"), (16, "a"), (31, "a"), (32, None), (64, "c")]
    ports.remove(8)
    assert ports.find(8) is None


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        (range(0x1F, 0x21), "ports 0x1f to 0x20 overlap 0x10 to 0x1f, which 'a' has claimed"),
        (range(5, 5), "no range"),
        (range(0, 8, 2), "no range"),
    ],
)
def test_ranges_that_cannot_be_claimed(numbers: range, words: str) -> None:
    ports: Ranges[str] = Ranges("port")
    ports.add(range(16, 32), "a")
    with pytest.raises(ValueError, match=words):
        ports.add(numbers, "b")


def test_a_guest_cannot_fill_the_memory_with_counters() -> None:
    ports: Ranges[str] = Ranges("address")
    for number in range(MOST_COUNTED + 10):
        ports.count(number * 4096)
    ports.count(0)
    assert (len(ports.unclaimed), ports.unclaimed[ELSEWHERE], ports.unclaimed[0]) == (MOST_COUNTED + 1, 10, 2)


def test_names() -> None:
    assert (range(0x3F8, 0x400), range(0xF4, 0xF8)) == (uart.PORTS, debug_exit.PORTS)
