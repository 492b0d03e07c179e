"""One CPU as a program in the guest has it: commands, claims, conversion, and what the CPU tells of itself."""

from __future__ import annotations

from sidecar.client.attachment import Attachment
from sidecar.layout.control import CpuStatus
from sidecar.protocol import decode, recorder
from sidecar.protocol.decode import Decoded
from sidecar.protocol.typed import TypedCpu

LINUX = "linux"


class Cpu(TypedCpu):
    """A CPU of a sidecar node, by its Linux number; see TypedCpu for the commands. Raises NoSuchCpu.

    Without a claim every command takes the CPU for itself and gives it back.
    """

    def __init__(self, attachment: Attachment, number: int) -> None:
        super().__init__(attachment.runner, number)
        self.attachment = attachment

    def __repr__(self) -> str:
        return f"<{self.numbers}, {self.state}>"

    @property
    def state(self) -> str:
        """`linux` while Linux runs it, else the status byte's name in lower case."""
        if self.attachment.is_online(self.number):
            return LINUX
        return decode.name_of(CpuStatus, self.attachment.status(self.number))

    # --- who has it ------------------------------------------------------------------------------------------------

    def convert(self) -> None:
        """Makes it a Linux CPU. Raises LinuxRefused, and as a command does at its start."""
        self.attachment.convert(self.number, self)

    def give_back(self) -> None:
        """Takes it from Linux; the sidecar has it, with its virtual processor reset. Raises LinuxRefused, CpuLost."""
        self.attachment.give_back(self.number, self)

    # --- what it tells, as plain data; nothing runs for it ------------------------------------------------------------

    def describe(self) -> Decoded:
        """The four numbers, always side by side, and the state."""
        numbers = self.numbers
        return {
            "linux_number": numbers.linux, "apic_id": numbers.apic_id, "node": numbers.node, "index": numbers.index,
            "state": self.state,
        }

    def boot_record(self) -> Decoded:
        """How it arrived last; phases in microseconds since the first INIT."""
        found = self.attachment.found
        page = self.attachment.diagnostic(self.number)
        return decode.boot_record(page, first_init_tsc=found.first_init_tsc, tsc_khz=found.tsc_khz)

    def fault_record(self) -> Decoded:
        """Its last fault; only `count` if it never had one."""
        return decode.fault_record(self.attachment.diagnostic(self.number))

    def counters(self) -> Decoded:
        """What happened on it since boot."""
        return decode.counters(self.attachment.diagnostic(self.number))

    def recorder(self) -> Decoded:
        """Its last events, oldest first; times in microseconds since the first INIT."""
        found = self.attachment.found
        page = self.attachment.diagnostic(self.number)
        return recorder.recorder(page, first_init_tsc=found.first_init_tsc, tsc_khz=found.tsc_khz)

    def log(self) -> Decoded:
        """Its log's lines, oldest first."""
        return decode.log_ring(self.attachment.log(self.number))
