"""Maps the pages of a node and of its CPUs when a driver attaches, and refuses what is not this ABI."""

from __future__ import annotations

from sidecar.layout.address_map import PRIVATE_PAGES, SHARED_PAGES, PrivatePage, SharedPage
from sidecar.layout.command import CommandPage
from sidecar.layout.control import ControlPage, CpuStatus
from sidecar.layout.diagnostics import DiagnosticPage, LogRing, PrivilegedPage
from sidecar.layout.schema import PAGE_SIZE
from sidecar.protocol.abi_check import require_abi
from sidecar.protocol.atomics import AtomicU8, AtomicU32, AtomicU64
from sidecar.protocol.backing import Backing, CpuNumbers, NodePages
from sidecar.protocol.errors import ProtocolError
from sidecar.protocol.slot import CpuPages, DriverState, Node, Slot
from sidecar.protocol.views import View


def initial_state(status: int) -> DriverState:
    """The private state of a CPU that is met with `status`; what another driver left in flight needs a restart."""
    if status == CpuStatus.REMOVED:
        return DriverState.REMOVED
    return DriverState.AVAIL if status in (CpuStatus.IDLE, CpuStatus.FAULTED) else DriverState.LOST


def open_node(backing: Backing, number: int, pages: NodePages) -> Node:
    """Maps a node's control page, checks it, and maps its CPUs. Raises ProtocolError if it is not our ABI."""
    memory = backing.view(pages.control_pa, PAGE_SIZE)
    control = View(ControlPage, memory)
    _check_control(control, number, pages)
    attention = AtomicU32(memory, int(ControlPage.needs_attention))
    response = AtomicU64(memory, int(ControlPage.response_cpu))
    node = Node(number, memory, control, attention, response, int(control.request_vector))
    node.slots = [_open_cpu(backing, node, pages, index) for index in range(pages.cpu_count)]
    return node


def _check_control(control: View, number: int, pages: NodePages) -> None:
    where = f"the control page of node {number} at {pages.control_pa:#x}"
    require_abi(where, int(control.abi_version), int(control.abi_hash))
    expected = {
        "index": number,
        "base_cpu": pages.base_cpu,
        "cpu_count": pages.cpu_count,
    }
    for name, value in expected.items():
        got = int(getattr(control, name))
        if got != value:
            raise ProtocolError(f"{where}: {name} is {got:#x}, expected {value:#x}")


def _open_cpu(backing: Backing, node: Node, pages: NodePages, index: int) -> Slot:
    linux = pages.base_cpu + index
    numbers = CpuNumbers(linux, backing.apic_ids[linux], node.number, index)
    shared = {page: _page(backing, pages.shared_pa, SHARED_PAGES, index, page) for page in SharedPage}
    private = {
        page: _page(backing, pages.private_pa, PRIVATE_PAGES, index, page)
        for page in (PrivatePage.PRIVILEGED, PrivatePage.DIAGNOSTIC, PrivatePage.LOG)
    }
    command, diagnostic = shared[SharedPage.COMMAND], private[PrivatePage.DIAGNOSTIC]
    views = CpuPages(
        control=node.control,
        command=View(CommandPage, command),
        diagnostic=View(DiagnosticPage, diagnostic),
        log=View(LogRing, private[PrivatePage.LOG]),
        privileged=View(PrivilegedPage, private[PrivatePage.PRIVILEGED]),
        register=shared[SharedPage.REGISTER],
    )
    slot = Slot(
        numbers=numbers,
        node=node,
        pages=views,
        status=AtomicU8(node.memory, int(ControlPage.cpu_status) + index),
        arrivals=AtomicU64(diagnostic, int(DiagnosticPage.boot.arrivals)),
        fault_count=AtomicU64(diagnostic, int(DiagnosticPage.fault.count)),
        command_memory=command,
        diagnostic_memory=diagnostic,
    )
    slot.state = initial_state(slot.status.load())
    _check_arrival(slot)
    return slot


def _page(backing: Backing, base_pa: int, pages_per_cpu: int, index: int, page: int) -> memoryview:
    return backing.view(base_pa + (index * pages_per_cpu + page) * PAGE_SIZE, PAGE_SIZE)


def _check_arrival(slot: Slot) -> None:
    """A CPU that has arrived knows its own numbers; they must be those of the map."""
    if slot.state is not DriverState.AVAIL or slot.arrivals.load() == 0:
        return
    boot = slot.pages.diagnostic.boot
    if (boot.apic_id, boot.linux_number) != (slot.numbers.apic_id, slot.numbers.linux):
        linux, apic_id = int(boot.linux_number), int(boot.apic_id)
        raise ProtocolError(f"{slot.numbers} arrived as CPU {linux} with APIC id {apic_id:#x}")
