"""Commands through the driver: a protocol.runner.Runner over device files.

    open_page    CLAIM, and the CPU's pages are mapped; unless an explicit claim has done both before
    run          RUN: one system call from the filled page to the answer
    start, wait  START; then the device file tells of the end, and `notices` tells who waits for it
    close_page   RELEASE, if open_page has claimed
"""

from __future__ import annotations

import errno
import struct
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sidecar.client.device import DeviceNode
from sidecar.client.notices import Notices
from sidecar.client.records import Records
from sidecar.client.refusals import Refusal
from sidecar.layout.command import CommandPage
from sidecar.layout.control import CpuStatus
from sidecar.layout.ioctl import Ioctl
from sidecar.protocol.abi_check import require_abi
from sidecar.protocol.backing import CpuNumbers
from sidecar.protocol.errors import CommandTimeout, CpuBusy, DriverError, NoSuchCpu, NothingRuns
from sidecar.protocol.fault import Fault
from sidecar.protocol.requests import command_name
from sidecar.protocol.runner import COMMAND_SECONDS, Prepare, nothing

# Looked up once: they stand in the path of every command.
ABI, ABI_OFFSET = struct.Struct("<I4xQ"), int(CommandPage.abi_version)
COMMAND, COMMAND_OFFSET = struct.Struct("<I"), int(CommandPage.command)

STOP_SECONDS = 2.0
"""How long a command may go on after STOP before its CPU is restarted."""


@dataclass(slots=True, eq=False)
class _Slot:
    """One CPU: who of this process has it, whether by claim() or for one command, and what it runs."""

    numbers: CpuNumbers
    notices: Notices
    owner: object | None = None
    claimed: bool = False
    memory: memoryview | None = None
    command: int = 0
    in_flight: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def node(self) -> DeviceNode:
        return self.notices.node

    def page(self) -> memoryview:
        if self.memory is None or self.owner is None:
            raise NothingRuns(f"{self.numbers}: its command page is not open")
        return self.memory


class DeviceRunner:
    """The CPUs of all nodes whose device files are given, by node number; the files stay the caller's.

    `driver_seconds` is the driver's own bound for RUN; who is less patient has the end told by the file.
    """

    def __init__(
        self, files: Sequence[DeviceNode], cpus: Sequence[CpuNumbers], records: Records, *,
        driver_seconds: float = COMMAND_SECONDS,
    ) -> None:
        self.cpus, self._records, self._driver_seconds = tuple(cpus), records, driver_seconds
        self.notices: Mapping[int, Notices] = {file.number: Notices(file) for file in files}
        self._slots = {numbers.linux: _Slot(numbers, self.notices[numbers.node]) for numbers in cpus}

    def numbers(self, cpu: int) -> CpuNumbers:
        return self._slot(cpu).numbers

    def close(self) -> None:
        """Nobody may wait any more. Takes the mappings back: each would keep its file, and the claims, alive."""
        for slot in self._slots.values():
            if slot.memory is not None:
                slot.memory.release()
                slot.memory, slot.owner = None, None
        for notices in self.notices.values():
            notices.close()

    # --- whose it is -----------------------------------------------------------------------------------------------

    def open_page(self, cpu: int, owner: object) -> memoryview:
        slot = self._slot(cpu)
        with slot.lock:
            if slot.owner is None:
                self._claim(slot, owner)
            elif slot.owner is not owner:
                raise CpuBusy(f"{slot.numbers} is claimed by another owner")
            return slot.page()

    def close_page(self, cpu: int, owner: object) -> None:
        slot = self._slot(cpu)
        with slot.lock:
            if slot.owner is owner and not slot.claimed:
                self._release(slot)

    def claim(self, cpu: int, owner: object) -> None:
        slot = self._slot(cpu)
        with slot.lock:
            if slot.owner is not None:
                raise CpuBusy(f"{slot.numbers} is already claimed")
            self._claim(slot, owner)
            slot.claimed = True

    def release(self, cpu: int, owner: object) -> None:
        slot = self._slot(cpu)
        with slot.lock:
            if slot.owner is not owner or not slot.claimed:
                raise CpuBusy(f"{slot.numbers} is not claimed by who releases it")
            self._release(slot)

    # --- what runs -------------------------------------------------------------------------------------------------

    def run(
        self, cpu: int, *, seconds: float = COMMAND_SECONDS, owner: object | None = None, prepare: Prepare = nothing
    ) -> None:
        if seconds < self._driver_seconds:
            self.start(cpu, owner=owner, prepare=prepare)
            try:
                self.wait(cpu, seconds=seconds, owner=owner)
            except KeyboardInterrupt:
                self._end_early(self._slot(cpu))
                raise
            return
        slot = self._prepared(cpu, owner, prepare)
        try:
            self._begin(slot, Ioctl.RUN, prepare)
        finally:
            slot.in_flight = False

    def start(self, cpu: int, *, owner: object | None = None, prepare: Prepare = nothing) -> None:
        slot = self._prepared(cpu, owner, prepare)
        slot.notices.forget(cpu)
        try:
            self._begin(slot, Ioctl.START, prepare)
        except BaseException:
            slot.in_flight = False
            raise

    def stop(self, cpu: int, *, owner: object | None = None) -> bool:
        slot = self._slot(cpu)
        self._require_owner(slot, owner)
        return bool(slot.in_flight and self._ask(slot, Ioctl.STOP))

    def wait(self, cpu: int, *, seconds: float = COMMAND_SECONDS, owner: object | None = None) -> None:
        slot = self._slot(cpu)
        self._require_owner(slot, owner)
        if not slot.in_flight:
            raise NothingRuns(f"{slot.numbers}: no run was started")
        if not slot.notices.wait(cpu, seconds):
            self._time_out(slot, seconds)
        slot.in_flight = False

    def restart(self, cpu: int, *, owner: object | None = None) -> None:
        slot = self._slot(cpu)
        with slot.lock:
            if slot.owner is not None and slot.owner is not owner:
                raise CpuBusy(f"{slot.numbers} is claimed by another owner")
            borrowed = slot.owner is None
            if borrowed:
                self._ask(slot, Ioctl.CLAIM)
            try:
                self._restart(slot)
            finally:
                if borrowed:
                    self._ask(slot, Ioctl.RELEASE)

    # --- what it tells ---------------------------------------------------------------------------------------------

    def status(self, cpu: int) -> int:
        return self._records.status(cpu)

    def fault(self, cpu: int) -> Fault | None:
        return Fault.read(memoryview(self._records.diagnostic(cpu)))

    # --- inside ----------------------------------------------------------------------------------------------------

    def _slot(self, cpu: int) -> _Slot:
        try:
            return self._slots[cpu]
        except KeyError:
            known = f"there are {len(self._slots)} CPUs in {len(self.notices)} nodes"
            raise NoSuchCpu(f"CPU {cpu} is in no sidecar node; {known}") from None

    def _claim(self, slot: _Slot, owner: object) -> None:
        self._ask(slot, Ioctl.CLAIM)
        try:
            if slot.memory is None:  # the driver empties the mapping at RELEASE; it stays ours for the next claim
                slot.memory = slot.node.map_pages(slot.numbers.index)
            version, found = ABI.unpack_from(slot.memory, ABI_OFFSET)
            require_abi(f"the command page of {slot.numbers}", version, found)
        except BaseException:
            self._ask(slot, Ioctl.RELEASE)
            raise
        slot.owner = owner

    def _release(self, slot: _Slot) -> None:
        try:
            self._ask(slot, Ioctl.RELEASE)
        except CpuBusy:
            raise  # it still runs something: the claim stays
        except DriverError:
            slot.owner, slot.claimed = None, False
            raise
        slot.owner, slot.claimed = None, False

    def _require_owner(self, slot: _Slot, owner: object | None) -> None:
        if slot.owner is None or slot.owner is not owner:
            raise CpuBusy(f"{slot.numbers} is not claimed by who uses it")

    def _prepared(self, cpu: int, owner: object | None, prepare: Prepare) -> _Slot:
        slot = self._slot(cpu)
        self._require_owner(slot, owner)
        if slot.in_flight:
            raise CpuBusy(f"{slot.numbers} runs a command that was not waited for")
        prepare()
        (slot.command,) = COMMAND.unpack_from(slot.page(), COMMAND_OFFSET)
        slot.in_flight = True
        return slot

    def _begin(self, slot: _Slot, what: Ioctl, prepare: Prepare) -> None:
        """RUN or START. If Linux has had the CPU since it was claimed, its page is clear, and is filled once more."""
        try:
            slot.node.ask(what, slot.numbers.linux)
        except OSError as error:
            if error.errno != errno.ESTALE or prepare is nothing:
                raise self._refusal(slot, what).of(error) from error
            prepare()
            self._ask(slot, what)

    def _ask(self, slot: _Slot, what: Ioctl) -> int:
        try:
            return slot.node.ask(what, slot.numbers.linux)
        except OSError as error:
            raise self._refusal(slot, what).of(error) from error

    def _refusal(self, slot: _Slot, what: Ioctl) -> Refusal:
        return Refusal(slot.numbers, what, command_name(slot.command), self._driver_seconds, self._records)

    def _restart(self, slot: _Slot) -> None:
        self._ask(slot, Ioctl.RESTART)
        slot.in_flight = False
        slot.notices.read()
        slot.notices.forget(slot.numbers.linux)

    def _end_early(self, slot: _Slot) -> None:
        """Who waited was interrupted: the run ends as one that RUN was interrupted in, by STOP, or by a restart."""
        self._ask(slot, Ioctl.STOP)
        if not slot.notices.wait(slot.numbers.linux, STOP_SECONDS):
            self._restart(slot)
        slot.in_flight = False

    def _time_out(self, slot: _Slot, seconds: float) -> None:
        """Takes the CPU back, then raises CommandTimeout."""
        cpu = slot.numbers.linux
        status, fault = self.status(cpu), self.fault(cpu)
        recovered = True
        try:
            self._restart(slot)
        except DriverError:
            recovered = False
        raise CommandTimeout(
            slot.numbers, command_name(slot.command), status=status, seconds=seconds,
            fault=fault if status == CpuStatus.FAULTED else None, recovered=recovered,
        )
