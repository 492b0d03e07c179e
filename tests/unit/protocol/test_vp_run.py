"""A run's inputs and outcome in the command page, and the values of the event registers, against the layouts."""

import pytest

from sidecar.layout.command import CommandPage
from sidecar.layout.hv import HvInterruptionType
from sidecar.layout.hv_messages import HvMessageType, IoPortMessage
from sidecar.layout.run import RunEnd
from sidecar.layout.schema import PAGE_SIZE
from sidecar.protocol import vp_run
from sidecar.protocol.views import View
from sidecar.protocol.vp_events import (
    exception,
    external_interrupt,
    interruption,
    when_interruptible,
    when_nmi_possible,
)


@pytest.fixture
def page() -> View:
    return View(CommandPage, memoryview(bytearray(PAGE_SIZE)))


def test_inputs(page: View) -> None:
    page.run.notifications = 7
    vp_run.write_run(page._memory, time_limit=1 << 40, flags=1, exception_intercepts=0x4000, advance_rip=15)
    vp_run.write_gps(page._memory, {"rax": 1, "cr2": 4, "r15": 15})
    run = page.run
    assert (run.time_limit, run.flags, run.exception_intercepts, run.advance_rip) == (1 << 40, 1, 0x4000, 15)
    assert run.notifications == 0
    assert [page.cpu_context.gps[n] for n in (0, 4, 15)] == [1, 4, 15]
    assert vp_run.read_gps(page._memory)["cr2"] == 4


def test_an_outcome_with_a_message(page: View) -> None:
    page.run.end, page.run.rip, page.run.cpl = RunEnd.INTERCEPT, 0x1234, 3
    message = page.intercept_message
    message.message_type, message.payload_size = HvMessageType.X64_IO_PORT_INTERCEPT, IoPortMessage.SIZE
    memory = page._memory
    payload = int(CommandPage.intercept_message.payload)
    io = View(IoPortMessage, memory[payload : payload + IoPortMessage.SIZE])
    io.port, io.instruction_byte_count, io.header.instruction_length = 0x3F8, 2, 0x52
    io.instruction_bytes = b"\xe6\x80" + bytes(14)
    outcome = vp_run.read_run(memory)
    assert (outcome.end, outcome.rip, outcome.cpl) == (RunEnd.INTERCEPT, 0x1234, 3)
    assert outcome.message is not None
    assert (outcome.message.body.port, outcome.message.instruction) == (0x3F8, b"\xe6\x80")
    assert outcome.message.instruction_length == 2, "without CR8"


def test_an_outcome_without_one_ignores_what_stands_there(page: View) -> None:
    page.run.end = RunEnd.CANCELLED
    page.intercept_message.message_type = 0x12345678
    assert vp_run.read_run(page._memory).message is None


def test_a_message_that_is_not_known(page: View) -> None:
    page.run.end = RunEnd.INTERCEPT
    page.intercept_message.message_type = 0x12345678
    with pytest.raises(ValueError, match="305419896 is not a valid HvMessageType"):
        vp_run.read_run(page._memory)


def test_event_registers() -> None:
    """Bit by bit, as the TLFS draws them."""
    assert exception(13, 0x77) == 1 | 1 << 8 | 13 << 16 | 0x77 << 32
    assert exception(14, 2, parameter=0xABC) == 1 | 1 << 8 | 14 << 16 | 2 << 32 | 0xABC << 64
    assert exception(6) == 1 | 6 << 16
    assert external_interrupt(0x31) == 1 | 5 << 1 | 0x31 << 8
    assert interruption(HvInterruptionType.NMI, 2) == 1 | 2 << 1 | 2 << 16
    assert interruption(HvInterruptionType.EXCEPTION, 8, 0) == 1 | 3 << 1 | 1 << 4 | 8 << 16
    assert interruption(HvInterruptionType.SOFTWARE_INTERRUPT, 0x80, length=2) == 1 | 4 << 1 | 2 << 5 | 0x80 << 16
    assert (when_nmi_possible(), when_interruptible(), when_interruptible(9)) == (1, 2, 2 | 9 << 2)


def test_event_values_that_do_not_exist() -> None:
    with pytest.raises(ValueError, match="vector 256: expected 0 to 255"):
        external_interrupt(256)
    with pytest.raises(ValueError, match="interrupt priority 16: expected 0 to 15"):
        when_interruptible(16)
