"""Routines of the built images on an emulated CPU: called by name, with registers, as their contracts say.

    shim = Emulator(image.shim(), stops=("after_sidecar",))
    shim.write("cpu_count", 2, size=4)
    done = shim.call("allocate", rdi=0x1000, rsi=0, rdx=1 << 32)
    done.rax, done.stop, shim.console, shim.changed()

The image's segments are mapped with their rights, so that a store to code faults here as it would on a CPU with page
tables. Memory is what the test maps and nothing else: any other access is a Fault, which names routine and line.
"""

import io
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import unicorn as untyped_unicorn
from elftools.elf.constants import P_FLAGS
from elftools.elf.elffile import ELFFile
from unicorn import x86_const

from sidecar.builder.asm import where_is
from sidecar.builder.image import Image
from sidecar.kernel.common.serial import Uart
from sidecar.layout import PAGE_SIZE
from sidecar.shim.console import Port

unicorn: Any = untyped_unicorn  # it claims to have types, and exports none of its names

STACK: Final = range(0x7FFF_0000, 0x7FFF_4000)
RETURN: Final = 0x7FFF_8000
SECONDS: Final = 20

GENERAL: Final = (
    "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
)  # fmt: skip
_NUMBERS: Final = {name: getattr(x86_const, f"UC_X86_REG_{name.upper()}") for name in GENERAL}
_CARRY, _ZERO = 1 << 0, 1 << 6
_JUNK: Final = 0x5A5A_0000_0000_0000
"""What a register holds that the caller did not set: no address, no small number."""


class Fault(Exception):
    """The routine did what it must not: a bad access, an exception, no end."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a call ended: `stop` is the label at which it was stopped, "" if the routine returned."""

    stop: str
    registers: dict[str, int]
    flags: int

    @property
    def rax(self) -> int:
        return self.registers["rax"]

    @property
    def carry(self) -> bool:
        return bool(self.flags & _CARRY)

    @property
    def zero(self) -> bool:
        return bool(self.flags & _ZERO)


class Emulator:
    """One image on one CPU in 64-bit mode, without paging.

    base: where a relocatable image lies; memory: further readable and writable pages; stops: labels at which a call
    ends. `console` is what was written to the first serial port since the last reset; `cpuid` what CPUID gives as
    eax, ebx, ecx, edx by leaf, else zeros.
    """

    def __init__(
        self, image: Image, *, base: int = 0, memory: tuple[range, ...] = (), stops: tuple[str, ...] = ()
    ) -> None:
        self.image, self.base = image, base
        self._cpu: Any = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_64)
        self._memory = memory
        self._output = bytearray()
        self.cpuid: dict[int, tuple[int, int, int, int]] = {}
        self._stop = ""
        self._stops = {self.at(label): label for label in stops}
        segments = ELFFile(io.BytesIO(image.elf)).iter_segments()
        self._segments = [segment for segment in segments if segment["p_type"] == "PT_LOAD"]
        self._loaded = [(base + one["p_vaddr"], one.data().ljust(one["p_memsz"], b"\0")) for one in self._segments]
        self._map_image()
        self._map(RETURN, PAGE_SIZE, P_FLAGS.PF_R | P_FLAGS.PF_X)
        for pages in (STACK, *memory):
            self._map(pages.start, len(pages), P_FLAGS.PF_R | P_FLAGS.PF_W)
        self._hook()
        self._symbols = sorted((address, name) for name, address in image.linked.symbols.items())
        self.reset()

    def _map_image(self) -> None:
        """Each segment with its rights; one that is loaded off page boundaries has none of its own."""
        if self.base % PAGE_SIZE:
            self._map(self.base, self.image.plan.memory_bytes, P_FLAGS.PF_R | P_FLAGS.PF_W | P_FLAGS.PF_X)
            return
        for segment in self._segments:
            self._map(self.base + segment["p_vaddr"], segment["p_memsz"], segment["p_flags"])

    def _map(self, start: int, size: int, flags: int) -> None:
        rights = unicorn.UC_PROT_READ
        rights |= unicorn.UC_PROT_WRITE if flags & P_FLAGS.PF_W else 0
        rights |= unicorn.UC_PROT_EXEC if flags & P_FLAGS.PF_X else 0
        first, end = start & -PAGE_SIZE, -(-(start + size) // PAGE_SIZE) * PAGE_SIZE
        self._cpu.mem_map(first, end - first, rights)

    def _hook(self) -> None:
        for address in self._stops:
            self._cpu.hook_add(unicorn.UC_HOOK_CODE, self._stop_here, begin=address, end=address)
        for hook, instruction in (
            (self._write_port, x86_const.UC_X86_INS_OUT),
            (self._read_port, x86_const.UC_X86_INS_IN),
            (self._answer_cpuid, x86_const.UC_X86_INS_CPUID),
        ):
            self._cpu.hook_add(unicorn.UC_HOOK_INSN, hook, None, 1, 0, instruction)

    def _stop_here(self, cpu: Any, address: int, size: int, data: Any) -> None:
        self._stop = self._stops[address]
        cpu.emu_stop()

    def _write_port(self, cpu: Any, port: int, size: int, value: int, data: Any) -> None:
        if port == Port.COM1 + Uart.DATA:
            self._output.append(value)

    def _read_port(self, cpu: Any, port: int, size: int, data: Any) -> int:
        return Uart.STATUS_TRANSMIT_EMPTY

    def _answer_cpuid(self, cpu: Any, data: Any) -> bool:
        answer = self.cpuid.get(cpu.reg_read(_NUMBERS["rax"]) & 0xFFFFFFFF, (0, 0, 0, 0))
        for name, value in zip(("rax", "rbx", "rcx", "rdx"), answer, strict=True):
            cpu.reg_write(_NUMBERS[name], value)
        return True  # instead of the emulator's own answer

    # --- memory ---------------------------------------------------------------------------------------------------

    @property
    def console(self) -> str:
        return self._output.decode("utf-8", errors="backslashreplace")

    def at(self, label: str) -> int:
        """The address of a label."""
        return self.base + self.image.linked.symbols[label]

    def read(self, pa: int | str, size: int) -> bytes:
        """Memory from an address or a label on."""
        return bytes(self._cpu.mem_read(self._address(pa), size))

    def number(self, pa: int | str, size: int = 8) -> int:
        return int.from_bytes(self.read(pa, size), "little")

    def write(self, pa: int | str, data: bytes | int, *, size: int = 8) -> None:
        """Bytes, or a number of `size` bytes."""
        content = data.to_bytes(size, "little") if isinstance(data, int) else data
        self._cpu.mem_write(self._address(pa), content)

    def reset(self) -> None:
        """Make memory and console what they were in the beginning."""
        for start, data in self._loaded:
            self._cpu.mem_write(start, data)
        for pages in (STACK, *self._memory):
            self._cpu.mem_write(pages.start, bytes(len(pages)))
        self._output.clear()
        self.cpuid.clear()

    def changed(self) -> set[str]:
        """The labels of all bytes of the image that are not as they were loaded."""
        names = set()
        for start, before in self._loaded:
            after = self.read(start, len(before))
            if after != before:
                names |= {self._name(start + i) for i in range(len(before)) if after[i] != before[i]}
        return names

    def _name(self, address: int) -> str:
        found = bisect_right(self._symbols, address - self.base, key=lambda symbol: symbol[0])
        return self._symbols[found - 1][1]

    def _address(self, pa: int | str) -> int:
        return self.at(pa) if isinstance(pa, str) else pa

    def before(self, address: int, act: Callable[[], None]) -> None:
        """Do this before each execution of the instruction there: what another CPU does meanwhile."""
        self._cpu.hook_add(unicorn.UC_HOOK_CODE, lambda *_: act(), begin=address, end=address)

    # --- calls ----------------------------------------------------------------------------------------------------

    def call(self, label: str, **registers: int) -> Outcome:
        """Call a routine; registers that are not given hold junk. Raises Fault."""
        self._stop = ""
        top = STACK.stop - 0x108  # rsp at a routine's entry is 8 modulo 16
        self._cpu.mem_write(top, RETURN.to_bytes(8, "little"))
        given = {name: _JUNK + number for number, name in enumerate(GENERAL)} | registers | {"rsp": top}
        for name, value in given.items():
            self._cpu.reg_write(_NUMBERS[name], value)
        self._cpu.reg_write(x86_const.UC_X86_REG_RFLAGS, 2)
        try:
            self._cpu.emu_start(self.at(label), RETURN, timeout=SECONDS * 1_000_000)
        except unicorn.UcError as error:
            raise Fault(f"{label}: {error}, at {self._where()}") from error
        outcome = self._outcome()
        if not self._stop:
            self._require_return(label, outcome, top)
        return outcome

    def _outcome(self) -> Outcome:
        registers = {name: self._cpu.reg_read(number) for name, number in _NUMBERS.items()}
        return Outcome(self._stop, registers, self._cpu.reg_read(x86_const.UC_X86_REG_RFLAGS))

    def _require_return(self, label: str, outcome: Outcome, top: int) -> None:
        if self._cpu.reg_read(x86_const.UC_X86_REG_RIP) != RETURN:
            late = self._cpu.query(unicorn.UC_QUERY_TIMEOUT)
            raise Fault(f"{label}: {f'no end within {SECONDS} s' if late else 'halted'}, at {self._where()}")
        if (rsp := outcome.registers["rsp"]) != top + 8:
            raise Fault(f"{label}: returned with rsp {rsp:#x}, expected {top + 8:#x}")

    def _where(self) -> str:
        rip = self._cpu.reg_read(x86_const.UC_X86_REG_RIP)
        return where_is(self.image.linked, rip - self.base)
