"""From a machine as a value to QEMU's arguments."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from sidecar.qemu.accelerator import Accelerator
from sidecar.qemu.command_line import BadMachine, MachineSpec, Wiring, command_line, default_memory_bytes
from sidecar.qemu.sizes import MIB

TCG = Accelerator("tcg", "")
KVM = Accelerator("kvm", "")


@pytest.fixture
def kernel(tmp_path: Path) -> Path:
    file = tmp_path / "shim.elf"
    file.touch()
    return file


def arguments(spec: MachineSpec) -> list[str]:
    wiring = Wiring(
        console=Path("run,1/console.log"),
        sidecar_log=Path("sidecar.log"),
        relay=7,
        qmp=9,
        memory=tuple(range(20, 20 + spec.numa)),
    )
    return command_line(Path("/usr/bin/qemu"), spec, wiring)


def values(option: str, command: list[str]) -> list[str]:
    """Every value that `option` is given."""
    return [value for name, value in pairwise(command) if name == option]


def test_a_plain_machine(kernel: Path) -> None:
    command = arguments(MachineSpec(accelerator=TCG, kernel=kernel, smp=4, memory_bytes=64 * MIB))
    assert command[0] == "/usr/bin/qemu"
    assert {"-nodefaults", "-no-user-config", "-no-reboot"} <= set(command)
    assert values("-machine", command) == ["q35,smm=off,memory-backend=ram0"]
    assert values("-accel", command) == ["tcg,thread=multi"]
    assert values("-cpu", command) == ["max"]
    assert values("-smp", command) == ["4"]
    assert values("-m", command) == ["size=64M"]
    assert values("-object", command) == [
        "memory-backend-file,id=ram0,size=67108864,mem-path=/proc/self/fd/20,share=on"
    ]
    assert values("-numa", command) == []
    assert values("-serial", command) == ["chardev:console", "chardev:relay", "chardev:sidecar"]
    assert values("-chardev", command) == [
        "file,id=console,path=run,,1/console.log",
        "socket,id=relay,fd=7",
        "file,id=sidecar,path=sidecar.log",
        "socket,id=qmp,fd=9",
    ]
    assert values("-device", command) == ["isa-debug-exit,iobase=0xf4,iosize=4"]
    assert values("-mon", command) == ["chardev=qmp,mode=control"]
    assert values("-kernel", command) == [str(kernel)]
    assert not {"-initrd", "-append", "-qmp"} & set(command)
    assert "-S" in command


def test_what_is_optional(kernel: Path) -> None:
    spec = MachineSpec(
        accelerator=KVM,
        kernel=kernel,
        initrd=kernel,
        append="sidecar=log",
        paused=True,
        qmp_socket=Path("q,mp"),
        extra=("-d", "int"),
    )
    command = arguments(spec)
    assert values("-accel", command) == ["kvm"]
    assert values("-cpu", command) == ["host"]
    assert values("-initrd", command) == [str(kernel)]
    assert values("-append", command) == ["sidecar=log"]
    assert values("-qmp", command) == ["unix:q,,mp,server=on,wait=off"]
    assert command[-2:] == ["-d", "int"]


def test_single_threaded_tcg(kernel: Path) -> None:
    command = arguments(MachineSpec(accelerator=TCG, kernel=kernel, tcg_thread="single"))
    assert values("-accel", command) == ["tcg,thread=single"]


def test_numa_nodes_are_consecutive_blocks(kernel: Path) -> None:
    command = arguments(MachineSpec(accelerator=TCG, kernel=kernel, smp=80, numa=2))
    assert values("-machine", command) == ["q35,smm=off"]
    assert values("-numa", command) == [
        "node,nodeid=0,cpus=0-39,memdev=ram0",
        "node,nodeid=1,cpus=40-79,memdev=ram1",
    ]
    assert values("-m", command) == ["size=592M"]
    assert values("-smp", command) == ["80,sockets=2"]
    uneven = MachineSpec(accelerator=TCG, kernel=kernel, smp=8, numa=3)
    assert values("-smp", arguments(uneven)) == ["8"]
    assert [uneven.node_cpus(node) for node in range(3)] == [range(3), range(3, 6), range(6, 8)]


@pytest.mark.parametrize("numa", [1, 2, 3, 7])
@pytest.mark.parametrize("smp", [7, 64, 260])
def test_default_memory_can_be_shared_out(kernel: Path, smp: int, numa: int) -> None:
    assert default_memory_bytes(smp, numa) >= 512 * MIB + smp * MIB
    spec = MachineSpec(accelerator=TCG, kernel=kernel, smp=smp, numa=numa)
    assert spec.node_bytes * numa == spec.total_bytes
    assert sum(len(spec.node_cpus(node)) for node in range(numa)) == smp


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"smp": 0}, "a machine has 1 to 4096 CPUs, not 0"),
        ({"smp": 5000}, "a machine has 1 to 4096 CPUs, not 5000"),
        ({"smp": 2, "numa": 3}, "2 CPUs make 1 to 2 NUMA nodes, not 3"),
        ({"numa": 0}, "1 CPUs make 1 to 1 NUMA nodes, not 0"),
        ({"memory_bytes": 4096}, "4K of memory cannot be shared out among 1 NUMA node(s) in multiples of 2M"),
        ({"initrd": Path("/nowhere")}, "the initrd /nowhere is not a file"),
        ({"kernel": Path("/nowhere")}, "the kernel /nowhere is not a file"),
    ],
)
def test_machines_that_cannot_be(kernel: Path, spec: dict[str, Any], message: str) -> None:
    with pytest.raises(BadMachine) as caught:
        MachineSpec(**{"accelerator": TCG, "kernel": kernel, **spec})
    assert str(caught.value) == message


def test_a_machine_for_linux_has_an_iommu(kernel: Path) -> None:
    command = arguments(MachineSpec(accelerator=TCG, kernel=kernel, iommu=True))
    assert values("-machine", command) == ["q35,smm=off,kernel-irqchip=split,memory-backend=ram0"]
    assert "intel-iommu,intremap=on,eim=on" in values("-device", command)


def test_the_console_of_an_interactive_machine_is_a_socket_and_a_file(kernel: Path) -> None:
    wiring = Wiring(console=Path("a,b"), sidecar_log=Path("log"), relay=7, qmp=9, memory=(20,), terminal=11)
    command = command_line(Path("qemu"), MachineSpec(accelerator=TCG, kernel=kernel, interactive=True), wiring)
    assert values("-chardev", command)[0] == "socket,id=console,fd=11,logfile=a,,b"
    assert values("-serial", command)[0] == "chardev:console"
