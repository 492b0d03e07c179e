"""The machine as a value, and the QEMU command line that makes it.

    MachineSpec(smp=80, numa=2, ...)  ->
        qemu-system-x86_64 -machine q35,smm=off -accel tcg,thread=multi -cpu max -smp 80,sockets=2 -m size=592M
        -object memory-backend-file,id=ram0,size=310378496,mem-path=/proc/self/fd/5,share=on
        -numa node,nodeid=0,cpus=0-39,memdev=ram0  ...

What the machine has besides CPUs and memory:

    COM1  0x3f8  IRQ 4   the console: a file (boot shim, then Linux), and a socket if the machine is interactive
    COM2  0x2f8  IRQ 3   a socket whose other end the host holds: the relay's bell, or the guest's agent
    COM3  0x3e8  IRQ 4   the sidecar's serial log: a file
    0xf4                 isa-debug-exit: a byte v written there ends QEMU with status 2v + 1
    QMP                  a socket whose other end the host holds

Ref: QEMU System Emulation documentation, "Invocation"; -smp above 255 needs x2APIC but no IOMMU (measured).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sidecar.errors import UserError
from sidecar.qemu.accelerator import Accelerator
from sidecar.qemu.sizes import MIB, format_size

DEBUG_EXIT_PORT = 0xF4
MOST_CPUS = 4096  # q35 in QEMU 10; older ones say so themselves
NODE_ALIGNMENT = 2 * MIB
BASE_MEMORY_BYTES = 512 * MIB
MEMORY_BYTES_PER_CPU = 1 * MIB


class BadMachine(UserError):
    """A machine that cannot be made."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineSpec:
    """What machine to make. Raises BadMachine for one that cannot be."""

    accelerator: Accelerator
    kernel: Path  # an ELF file with a PVH note, or a bzImage
    initrd: Path | None = None  # the boot bundle, or an initramfs
    append: str = ""  # command line for the kernel
    smp: int = 1
    numa: int = 1  # nodes; with one, the firmware describes no NUMA at all (no SRAT)
    memory_bytes: int | None = None  # None: see default_memory_bytes()
    tcg_thread: Literal["multi", "single"] = "multi"  # single: atomics are not atomic against the host
    iommu: bool = False  # an IOMMU that remaps interrupts to x2APIC ids, which Linux wants for x2APIC mode
    interactive: bool = False  # the console is a socket too, whose other end the host holds
    paused: bool = False  # do not start the CPUs; Machine.cont() does
    qmp_socket: Path | None = None  # a second QMP server here, for other programs
    extra: tuple[str, ...] = ()  # further QEMU arguments

    def __post_init__(self) -> None:
        if not 1 <= self.smp <= MOST_CPUS:
            raise BadMachine(f"a machine has 1 to {MOST_CPUS} CPUs, not {self.smp}")
        if not 1 <= self.numa <= self.smp:
            raise BadMachine(f"{self.smp} CPUs make 1 to {self.smp} NUMA nodes, not {self.numa}")
        if self.total_bytes % (self.numa * NODE_ALIGNMENT):
            raise BadMachine(
                f"{format_size(self.total_bytes)} of memory cannot be shared out among {self.numa} NUMA node(s) "
                f"in multiples of {format_size(NODE_ALIGNMENT)}"
            )
        for name, file in (("kernel", self.kernel), ("initrd", self.initrd)):
            if file is not None and not file.is_file():
                raise BadMachine(f"the {name} {file} is not a file")
        if self.qmp_socket is not None:
            _check_new_socket(self.qmp_socket)

    @property
    def total_bytes(self) -> int:
        return self.memory_bytes if self.memory_bytes is not None else default_memory_bytes(self.smp, self.numa)

    @property
    def node_bytes(self) -> int:
        """Memory of each NUMA node."""
        return self.total_bytes // self.numa

    def node_cpus(self, node: int) -> range:
        """The CPUs of NUMA node `node`: consecutive blocks, the first ones larger by one where it does not come out."""
        share, rest = divmod(self.smp, self.numa)
        start = node * share + min(node, rest)
        return range(start, start + share + (node < rest))


@dataclass(frozen=True, slots=True, kw_only=True)
class Wiring:
    """The files and inherited file descriptors that connect a machine with the host."""

    console: Path
    sidecar_log: Path
    relay: int  # a connected stream socket
    qmp: int  # likewise
    memory: tuple[int, ...]  # one file per NUMA node, of the node's size
    terminal: int | None = None  # a connected stream socket for the console of an interactive machine



def _check_new_socket(path: Path) -> None:
    """QEMU makes the socket, and it is removed afterwards: nothing else may be there. Raises BadMachine."""
    if not path.parent.is_dir():
        raise BadMachine(f"the QMP socket {path} cannot be made: {path.parent} is not a directory")
    if path.exists() and not path.is_socket():
        raise BadMachine(f"the QMP socket {path} cannot be made: something else of this name is there")

def default_memory_bytes(smp: int, numa: int = 1) -> int:
    """512 MiB and one more per CPU, rounded up so that every NUMA node gets the same."""
    unit = numa * NODE_ALIGNMENT
    return -(-(BASE_MEMORY_BYTES + smp * MEMORY_BYTES_PER_CPU) // unit) * unit


def topology(spec: MachineSpec) -> str:
    """A socket per NUMA node where it comes out even: Linux warns of nodes that share a last-level cache."""
    sockets = f",sockets={spec.numa}" if spec.numa > 1 and spec.smp % spec.numa == 0 else ""
    return f"{spec.smp}{sockets}"


def backend_name(node: int) -> str:
    """QEMU's name for the memory of a NUMA node; `info mtree` shows it."""
    return f"ram{node}"


def command_line(qemu: Path, spec: MachineSpec, wiring: Wiring) -> list[str]:
    """The argument list that starts the machine `spec`, connected by `wiring`."""
    return [
        str(qemu),
        "-nodefaults", "-no-user-config", "-no-reboot",
        "-display", "none",
        *_machine(spec),
        *_memory(spec, wiring.memory),
        *_ports(spec, wiring),
        *_payload(spec),
        *spec.extra,
    ]  # fmt: skip


def _machine(spec: MachineSpec) -> Iterator[str]:
    # Without system management mode a machine of 260 CPUs starts in a sixth of the time (0.8 s instead of 5 s).
    backend = "" if spec.numa > 1 else f",memory-backend={backend_name(0)}"
    accel = {"tcg": f"tcg,thread={spec.tcg_thread}", "kvm": "kvm"}[spec.accelerator.kind]
    chip = ",kernel-irqchip=split" if spec.iommu else ""
    yield from ("-machine", f"q35,smm=off{chip}{backend}", "-accel", accel, "-cpu", spec.accelerator.cpu_model)
    yield from ("-smp", topology(spec), "-m", f"size={spec.total_bytes // MIB}M")
    if spec.iommu:
        yield from ("-device", "intel-iommu,intremap=on,eim=on")
    yield "-S"  # Machine lets the CPUs run once it watches them


def _memory(spec: MachineSpec, files: tuple[int, ...]) -> Iterator[str]:
    if len(files) != spec.numa:
        raise ValueError(f"{len(files)} memory files for {spec.numa} NUMA nodes")
    for node, file in enumerate(files):
        name = backend_name(node)
        yield from (
            "-object",
            f"memory-backend-file,id={name},size={spec.node_bytes},mem-path=/proc/self/fd/{file},share=on",
        )
        if spec.numa > 1:
            cpus = spec.node_cpus(node)
            yield from ("-numa", f"node,nodeid={node},cpus={cpus.start}-{cpus.stop - 1},memdev={name}")


def _ports(spec: MachineSpec, wiring: Wiring) -> Iterator[str]:
    console = _escaped(wiring.console)
    if wiring.terminal is None:
        yield from ("-chardev", f"file,id=console,path={console}", "-serial", "chardev:console")
    else:
        terminal = f"socket,id=console,fd={wiring.terminal},logfile={console}"
        yield from ("-chardev", terminal, "-serial", "chardev:console")
    yield from ("-chardev", f"socket,id=relay,fd={wiring.relay}", "-serial", "chardev:relay")
    yield from ("-chardev", f"file,id=sidecar,path={_escaped(wiring.sidecar_log)}", "-serial", "chardev:sidecar")
    yield from ("-device", f"isa-debug-exit,iobase={DEBUG_EXIT_PORT:#x},iosize=4")
    yield from ("-chardev", f"socket,id=qmp,fd={wiring.qmp}", "-mon", "chardev=qmp,mode=control")
    if spec.qmp_socket is not None:
        yield from ("-qmp", f"unix:{_escaped(spec.qmp_socket)},server=on,wait=off")


def _payload(spec: MachineSpec) -> Iterator[str]:
    yield from ("-kernel", str(spec.kernel))
    if spec.initrd is not None:
        yield from ("-initrd", str(spec.initrd))
    if spec.append:
        yield from ("-append", spec.append)


def _escaped(path: Path) -> str:
    """A path as a value in QEMU's option syntax, where a comma ends the value unless it is doubled."""
    return str(path).replace(",", ",,")
