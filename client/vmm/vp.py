"""One virtual processor: runs, registers, events, and its whole state.

    exit = vp.run()                                 # blocks until something happens; seconds=0.1 bounds it
    rip, cs = vp.get("rip", "cs")
    vp.set(rax=0, rip=0x7C00, cs=Segment(0, 0xFFFF, 0, 0x9B))
    vp.advance_rip(exit.length); vp.interrupt(0x20); vp.fault(13, error_code=0)
    state = vp.save(); other.restore(state)          # Machine.move_vp does it for the same guest

A Vp is for one thread at a time; only stop() and notify() may be called by any. Between runs all of its state is the
VMM's: general registers, CR2 and the legacy floating-point state lie in the CPU's command page, the rest in the CPU.
"""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Callable
from math import inf

from sidecar.client.vmm.backing import VmBacking
from sidecar.client.vmm.events import Events
from sidecar.client.vmm.exits import Exit, NotifiedExit, TimeLimitExit, decode_exit
from sidecar.client.vmm.fields import Fields
from sidecar.client.vmm.registers import RSP_SLOT, Kind, Register, Value, decoded, register
from sidecar.client.vmm.state import FX_BYTES, FX_STATE, SAVED, WRITABLE, VpSnapshot
from sidecar.layout.command import CommandPage, SidecarCommand
from sidecar.layout.hv import HvTranslateFlags
from sidecar.layout.hv_registers import HvRegisterName
from sidecar.layout.run import RunFlags
from sidecar.protocol.errors import NothingRuns
from sidecar.protocol.translation import Translation, read_translation, translate_request
from sidecar.protocol.typed import Run, TypedCpu

RUN_SECONDS = 30.0
"""How long a run may take to end when its time is over; then the CPU is restarted."""

UNKNOWN_KHZ = 1_000_000
SHORTEST_TICKS = 1
MOST_ADVANCED = 15
GPS = int(CommandPage.cpu_context.gps)
ADVANCE, FLAGS = int(CommandPage.run.advance_rip), int(CommandPage.run.flags)
NOTIFICATIONS, RIP = int(CommandPage.run.notifications), int(CommandPage.run.rip)
U32, U64, INPUTS = struct.Struct("<I"), struct.Struct("<Q"), struct.Struct("<QII")
OUTCOME = Fields(
    CommandPage, "run.end", "run.notifications", "run.guest_entries", "run.local_exits", "run.guest_tsc", "run.rip",
    "run.rsp", "run.rflags", "run.cr0", "run.cr3", "run.cr4", "run.efer", "run.cs_attributes", "run.cpl",
)  # fmt: skip
MASK_64 = (1 << 64) - 1


class Vp:
    """Made by Machine.add_vp(); `index` is its place in the machine, `cpu` what it runs on."""

    def __init__(self, backing: VmBacking, cpu: TypedCpu, index: int) -> None:
        self.backing, self.cpu, self.index = backing, cpu, index
        self._page = backing.page(cpu)
        self._khz, self._slice = backing.tsc_khz or UNKNOWN_KHZ, backing.slice_seconds
        self._run: Run | None = None
        self._bits = 0
        self._posting = threading.Lock()
        self.exception_exits = 0
        """Bit n: exception n ends the run instead of being delivered."""
        self.cpuid_exits = False
        """CPUID ends the run."""
        self.events = Events(self)
        self.guest_entries = self.local_exits = self.guest_ticks = 0
        self.rip = self.rsp = self.rflags = self.cr0 = self.cr3 = self.cr4 = self.efer = 0
        self.cs_attributes = self.cpl = 0
        self.waker: Callable[[], None] | None = None
        """Called after notify(), from any thread, by who waits for a halted virtual processor."""
        self.notified = False
        """Set by notify(); who has seen it clears it."""
        self._forget_run()
        self.refresh()  # sets the virtual processor up, and the registers in the page with it

    def __repr__(self) -> str:
        return f"<virtual processor {self.index} on {self.cpu.numbers}>"

    # --- running ---------------------------------------------------------------------------------------------------

    def run(self, *, seconds: float | None = None) -> Exit:
        """Runs the guest until something happens; TimeLimitExit after `seconds`. Raises as TypedCpu.execute() does."""
        end = None if seconds is None else time.monotonic() + seconds
        while True:
            left = self._slice if end is None else min(self._slice, max(end - time.monotonic(), 0.0))
            if (ready := self._prepare(left)) is not None:
                return ready
            try:
                self.cpu.execute(SidecarCommand.RUN_VP, seconds=RUN_SECONDS)
            except KeyboardInterrupt:
                self._abandon()
                raise
            exit = self._outcome()
            if not isinstance(exit, TimeLimitExit) or (end is not None and time.monotonic() >= end):
                return exit

    def start(self, *, seconds: float = inf) -> Exit | None:
        """Begins a run of at most `seconds`, or slice_seconds, for finish() to end; or an exit that is there."""
        if (ready := self._prepare(min(seconds, self._slice))) is None:
            self._run = self.cpu.start(SidecarCommand.RUN_VP)
        return ready

    def finish(self, *, seconds: float = RUN_SECONDS) -> Exit:
        """Waits for the end of the run that start() began. Raises NothingRuns, and as run() does."""
        if self._run is None:
            raise NothingRuns(f"{self}: no run was started")
        run, self._run = self._run, None
        run.wait(seconds=seconds)
        return self._outcome()

    @property
    def running(self) -> bool:
        """Was a run started, and not finished?"""
        return self._run is not None

    def stop(self) -> bool:
        """Ends the run at once with CancelledExit; False if none runs. From any thread."""
        return self.cpu.stop()

    def notify(self, bits: int) -> None:
        """Posts bits of 64: this run, or the next at its start, ends with NotifiedExit. From any thread."""
        with self._posting:
            self.backing.ring(self.cpu, bits)
        self.notified = True
        if self.waker is not None:
            self.waker()

    def _prepare(self, seconds: float) -> Exit | None:
        if self._bits:
            return self._notified()
        self.events.before_run()
        flags = RunFlags.CPUID_EXITS if self.cpuid_exits else 0
        limit = max(int(seconds * self._khz * 1000), 1)
        INPUTS.pack_into(self._page, int(CommandPage.run.time_limit), limit, flags, self.exception_exits)
        return None

    def _outcome(self) -> Exit:
        (
            end, bits, self.guest_entries, self.local_exits, self.guest_ticks, self.rip, self.rsp, self.rflags,
            self.cr0, self.cr3, self.cr4, self.efer, self.cs_attributes, self.cpl,
        ) = OUTCOME(self._page)  # fmt: skip
        if bits:
            U64.pack_into(self._page, NOTIFICATIONS, 0)
            self._bits |= bits
        exit = decode_exit(self._page, end, self.rip, self._bits)
        if isinstance(exit, NotifiedExit):
            self._bits = 0
        self.events.after_run(exit)
        return exit

    def _notified(self) -> NotifiedExit:
        """Bits that came together with another exit."""
        bits, self._bits = self._bits, 0
        return NotifiedExit(self.rip, bits)

    def _abandon(self) -> None:
        """Who waited was interrupted: the run is stopped, and what it ended with is lost unless it runs again."""
        self.cpu.abandon(seconds=RUN_SECONDS)

    # --- registers -------------------------------------------------------------------------------------------------

    def get(self, *names: str | int) -> tuple[Value, ...]:
        """Registers' values in the order of their names: numbers, Segment, Table."""
        wanted = [register(name) for name in names]
        asked = [entry.number for entry in wanted if not self._is_here(entry)]
        values = self.cpu.get_registers(asked) if asked else {}
        got = [self._here(entry) if self._is_here(entry) else values[entry.number] for entry in wanted]
        return tuple(decoded(entry, value) for entry, value in zip(wanted, got, strict=True))

    def read(self, name: str | int) -> int:
        """One register as a number, also a segment's 128 bits."""
        return int(self.get(name)[0])

    def set(self, values: dict[str | int, Value] | None = None, /, **more: Value) -> None:
        """Sets registers: `vp.set(rip=0x7C00)`. Raises SidecarCommandError with the CPU's sentence, ValueError."""
        given = {register(name): int(value) for name, value in (*(values or {}).items(), *more.items())}
        away = {entry.number: value for entry, value in given.items() if not self._is_here(entry)}
        if away:
            self.cpu.set_registers(away)
        for entry, value in given.items():
            if self._is_here(entry):
                self._put(entry, value)
        if HvRegisterName.HvX64RegisterRip in away:
            self._page[ADVANCE] = 0
        self._remember(away)

    def general(self, index: int) -> int:
        """A general register by its number in the encoding, 0 RAX to 15 R15; RSP as the last run left it."""
        if index == RSP_SLOT:
            return self.rsp
        (value,) = U64.unpack_from(self._page, GPS + 8 * index)
        return int(value)

    def set_general(self, index: int, value: int) -> None:
        if index == RSP_SLOT:
            self.set(rsp=value & MASK_64)
        else:
            U64.pack_into(self._page, GPS + 8 * index, value & MASK_64)

    def advance_rip(self, length: int) -> None:
        """The next run begins `length` bytes further, and not in an interrupt shadow."""
        total = self._page[ADVANCE] + length
        if total <= MOST_ADVANCED:
            self._page[ADVANCE] = total
        else:
            (rip,) = self.get("rip")
            self.set(rip=int(rip) + length & MASK_64)

    @property
    def advance(self) -> int:
        """Bytes that the next run will first add to RIP."""
        return self._page[ADVANCE]

    def _is_here(self, entry: Register) -> bool:
        return entry.kind in (Kind.GENERAL, Kind.VECTOR)

    def _here(self, entry: Register) -> int:
        if entry.kind is Kind.GENERAL:
            (value,) = U64.unpack_from(self._page, GPS + 8 * entry.slot)
            return int(value)
        start = FX_STATE + entry.slot
        return int.from_bytes(self._page[start : start + 16], "little")

    def _put(self, entry: Register, value: int) -> None:
        if entry.kind is Kind.GENERAL:
            U64.pack_into(self._page, GPS + 8 * entry.slot, value)
        else:
            start = FX_STATE + entry.slot
            self._page[start : start + 16] = value.to_bytes(16, "little")

    def _remember(self, values: dict[int, int]) -> None:
        """What later runs tell of by themselves is kept up to date between them."""
        for number, value in values.items():
            if (name := _SHADOWED.get(number)) is not None:
                setattr(self, name, value)

    def refresh(self) -> None:
        """Reads rip, rsp, rflags, cr0, cr3, cr4 and efer, which after a run are there by themselves."""
        self._remember(self.cpu.get_registers(list(_SHADOWED)))

    def _forget_run(self) -> None:
        """The command page has no inputs of a run of somebody else's."""
        start, end = int(CommandPage.run), int(CommandPage.run) + CommandPage.run.SIZE
        self._page[start:end] = bytes(end - start)

    # --- events and addresses --------------------------------------------------------------------------------------

    def interrupt(self, vector: int) -> None:
        """Delivers an external interrupt as soon as the guest takes one; several wait, the highest vector first."""
        self.events.interrupt(vector)

    def nmi(self) -> None:
        """Delivers an NMI as soon as the guest takes one."""
        self.events.nmi()

    def fault(self, vector: int, *, error_code: int | None = None, address: int | None = None) -> None:
        """The next run begins with that exception; `address` is a page fault's."""
        self.events.fault(vector, error_code=error_code, address=address)

    def translate(self, gva: int, *, write: bool = False, execute: bool = False) -> Translation:
        """What an access of the guest, at its privilege, to a linear address would reach, or raise.

        Accessed and dirty bits are set as the access would.
        """
        flags = HvTranslateFlags.SET_PAGE_TABLE_BITS | HvTranslateFlags.VALIDATE_READ
        flags |= HvTranslateFlags.VALIDATE_WRITE if write else 0
        flags |= HvTranslateFlags.VALIDATE_EXECUTE if execute else 0
        answer = self.cpu.execute(SidecarCommand.TRANSLATE_GVA, translate_request(gva, int(flags)))
        return read_translation(answer, gva)

    # --- all of it -------------------------------------------------------------------------------------------------

    def save(self) -> VpSnapshot:
        """The whole state of the stopped virtual processor. Raises as get() does."""
        self._settle()
        got = self.get(*(entry.number for entry in SAVED))
        values = {entry.name: int(value) for entry, value in zip(SAVED, got, strict=True)}
        fx_state = bytes(self._page[FX_STATE : FX_STATE + FX_BYTES])
        self.cpu.execute(SidecarCommand.GET_VP_XSAVE)
        xsave = bytes(self.backing.register_page(self.cpu)[FX_BYTES:]).rstrip(b"\0")
        return VpSnapshot(values, fx_state, xsave, self._bits, *self.events.waiting())

    def restore(self, snapshot: VpSnapshot) -> None:
        """Makes this virtual processor the one that was saved, on this CPU or another. Raises as set() does."""
        self._forget_run()
        self.set({entry.number: snapshot.registers[entry.name] for entry in WRITABLE})
        self._page[FX_STATE : FX_STATE + FX_BYTES] = snapshot.fx_state
        image = self.backing.register_page(self.cpu)
        image[:] = (bytes(FX_BYTES) + snapshot.xsave).ljust(len(image), b"\0")
        self.cpu.execute(SidecarCommand.SET_VP_XSAVE)
        self._bits = snapshot.bits
        self.events.wait_for(snapshot.interrupts, nmi=snapshot.nmi)

    def move(self, cpu: TypedCpu) -> None:
        """Becomes the virtual processor that this CPU was given, as Machine.move_vp does; the other one has its state
        still. Raises as save() and restore() do, and nothing has changed then.
        """
        with self._posting:  # bits are in the snapshot, or posted to the new CPU
            snapshot, before = self.save(), self.cpu
            self.cpu, self._page = cpu, self.backing.page(cpu)
            try:
                self.restore(snapshot)
            except BaseException:
                self.cpu, self._page = before, self.backing.page(before)
                raise

    def _settle(self) -> None:
        """Takes the bits that were posted since the last run, and makes the step that the next one would begin with.

        That is a run whose time is over before it enters the guest.
        """
        INPUTS.pack_into(self._page, int(CommandPage.run.time_limit), SHORTEST_TICKS, 0, self.exception_exits)
        self.cpu.execute(SidecarCommand.RUN_VP, seconds=RUN_SECONDS)
        (self.rip,) = U64.unpack_from(self._page, RIP)
        (bits,) = U64.unpack_from(self._page, NOTIFICATIONS)
        U64.pack_into(self._page, NOTIFICATIONS, 0)
        self._bits |= bits


_SHADOWED = {
    int(HvRegisterName[f"HvX64Register{name.capitalize()}"]): name
    for name in ("rip", "rsp", "rflags", "cr0", "cr3", "cr4", "efer")
}
