"""A serial port of the 8250 family, a 16550A with its FIFOs, on the host's side a stream of bytes each way.

What is sent is out at once; what comes in waits in `receive()` order. Interrupts are told to `interrupt(level)`.
Ref: National Semiconductor PC16550D data sheet, 8.0 (registers).
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from enum import IntEnum, IntFlag

from sidecar.client.vmm.answers import Answer

PORTS = range(0x3F8, 0x400)
FIFO_BYTES = 16

Send = Callable[[bytes], object]


class Register(IntEnum):
    """Offsets; with LineControl.DLAB the first two are the divisor."""

    DATA = 0
    INTERRUPT_ENABLE = 1
    INTERRUPT_ID = 2
    """FIFO control when written."""
    LINE_CONTROL = 3
    MODEM_CONTROL = 4
    LINE_STATUS = 5
    MODEM_STATUS = 6
    SCRATCH = 7


class LineControl(IntFlag):
    DLAB = 1 << 7


class Enable(IntFlag):
    """INTERRUPT_ENABLE."""

    RECEIVED = 1 << 0
    EMPTY = 1 << 1
    LINE = 1 << 2
    MODEM = 1 << 3


class LineStatus(IntFlag):
    READY = 1 << 0
    OVERRUN = 1 << 1
    HOLDING_EMPTY = 1 << 5
    EMPTY = 1 << 6


class Modem(IntFlag):
    """MODEM_CONTROL."""

    DTR = 1 << 0
    RTS = 1 << 1
    OUT1 = 1 << 2
    OUT2 = 1 << 3
    LOOP = 1 << 4


class Cause(IntEnum):
    """INTERRUPT_ID, the most urgent first."""

    LINE = 6
    RECEIVED = 4
    EMPTY = 2
    NONE = 1


FIFO_ENABLED = 0xC0
CONNECTED = 0xB0
"""MODEM_STATUS with a partner: carrier, data set ready, clear to send."""


class Uart:
    """Reads and writes are of one byte; wider ones reach the following registers, as the bus splits them."""

    def __init__(self, send: Send, interrupt: Callable[[bool], object] | None = None) -> None:
        self._send, self._interrupt = send, interrupt
        self._received: deque[int] = deque()
        self._lock = threading.RLock()
        self._enable = self._line = self._modem = self._scratch = 0
        self._divisor, self._fifo, self._level = 12, False, False
        self._empty_pending = self._overrun = False

    def __repr__(self) -> str:
        return "the UART"

    def receive(self, data: bytes) -> None:
        """Bytes for the guest; from any thread."""
        with self._lock:
            self._received.extend(data)
            self._update()

    def read(self, offset: int, size: int) -> Answer:
        with self._lock:
            value = 0
            for place in range(size):
                value |= self._read(offset + place) << 8 * place
            self._update()
            return value

    def write(self, offset: int, size: int, value: int) -> Answer:
        with self._lock:
            for place in range(size):
                self._write(offset + place, value >> 8 * place & 0xFF)
            self._update()
        return None

    # --- inside ----------------------------------------------------------------------------------------------------

    def _read(self, offset: int) -> int:
        if self._line & LineControl.DLAB and offset <= Register.INTERRUPT_ENABLE:
            return self._divisor >> 8 * offset & 0xFF
        if offset == Register.DATA:
            return self._received.popleft() if self._received else 0
        if offset == Register.INTERRUPT_ID:
            cause = self._cause()
            if cause is Cause.EMPTY:
                self._empty_pending = False  # to read it is to have served it
            return cause | (FIFO_ENABLED if self._fifo else 0)
        if offset == Register.LINE_STATUS:
            status = LineStatus.HOLDING_EMPTY | LineStatus.EMPTY
            status |= LineStatus.READY if self._received else 0
            status |= LineStatus.OVERRUN if self._overrun else 0
            self._overrun = False
            return int(status)
        return {
            Register.INTERRUPT_ENABLE: self._enable, Register.LINE_CONTROL: self._line,
            Register.MODEM_CONTROL: self._modem, Register.MODEM_STATUS: self._modem_status(),
            Register.SCRATCH: self._scratch,
        }.get(Register(offset), 0)  # fmt: skip

    def _write(self, offset: int, value: int) -> None:
        if self._line & LineControl.DLAB and offset <= Register.INTERRUPT_ENABLE:
            shift = 8 * offset
            self._divisor = self._divisor & ~(0xFF << shift) | value << shift
        elif offset == Register.DATA:
            self._transmit(value)
        elif offset == Register.INTERRUPT_ENABLE:
            if value & ~self._enable & Enable.EMPTY:
                self._empty_pending = True
            self._enable = value & 0xF
        elif offset == Register.INTERRUPT_ID:
            self._fifo = bool(value & 1)
            if value & 2:
                self._received.clear()
        elif offset == Register.LINE_CONTROL:
            self._line = value
        elif offset == Register.MODEM_CONTROL:
            self._modem = value & 0x1F
        elif offset == Register.SCRATCH:
            self._scratch = value

    def _transmit(self, value: int) -> None:
        if self._modem & Modem.LOOP:
            if len(self._received) < (FIFO_BYTES if self._fifo else 1):
                self._received.append(value)
            else:
                self._overrun = True
        else:
            self._send(bytes([value]))
        self._empty_pending = True

    def _modem_status(self) -> int:
        if not self._modem & Modem.LOOP:
            return CONNECTED
        pairs = ((Modem.RTS, 0x10), (Modem.DTR, 0x20), (Modem.OUT1, 0x40), (Modem.OUT2, 0x80))
        return sum(status for control, status in pairs if self._modem & control)

    def _cause(self) -> Cause:
        if self._overrun and self._enable & Enable.LINE:
            return Cause.LINE
        if self._received and self._enable & Enable.RECEIVED:
            return Cause.RECEIVED
        if self._empty_pending and self._enable & Enable.EMPTY:
            return Cause.EMPTY
        return Cause.NONE

    def _update(self) -> None:
        """Tells of the interrupt line when it has changed; OUT2 connects it, as in a PC."""
        level = self._cause() is not Cause.NONE and bool(self._modem & Modem.OUT2)
        if level != self._level:
            self._level = level
            if self._interrupt is not None:
                self._interrupt(level)
