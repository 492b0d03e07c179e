"""The offsets of OpenHCL's sidecar, typed from its definitions, against the layouts: the two agree byte for byte."""

import pytest

from sidecar.layout import by_name, required_memory
from sidecar.layout.command import SidecarCommand
from sidecar.layout.control import CPU_STATUS_COUNT, CpuStatus
from sidecar.layout.ioctl import Ioctl, VmIoctl, VpIoctl
from sidecar.layout.registry import CONSTANTS

# layout: (size, {field: (offset, size)})
UPSTREAM: dict[str, dict[str, tuple[int, int]]] = {
    "SidecarParams": {
        "hypercall_page": (0x000, 8),
        "enable_logging": (0x008, 1),
        "node_count": (0x00C, 4),
        "nodes": (0x010, 24 * 128),
        "initial_state": (0xC10, 401),
        "initial_state.per_cpu_state_specified": (0xC10, 1),
        "initial_state.sidecar_starts_cpu": (0xC11, 400),
    },
    "SidecarNodeParams": {
        "memory_base": (0, 8),
        "memory_size": (8, 8),
        "base_vp": (16, 4),
        "vp_count": (20, 4),
    },
    "SidecarOutput": {
        "error": (0, 256),
        "error.length": (0, 1),
        "error.text": (1, 255),
        "nodes": (0x100, 24 * 128),
    },
    "SidecarNodeOutput": {
        "control_page": (0, 8),
        "shmem_pages_base": (8, 8),
        "shmem_pages_size": (16, 8),
    },
    "ControlPage": {
        "index": (0x00, 4),
        "base_cpu": (0x04, 4),
        "cpu_count": (0x08, 4),
        "request_vector": (0x0C, 4),
        "response_cpu": (0x10, 4),
        "response_vector": (0x14, 4),
        "needs_attention": (0x18, 4),
        "cpu_status": (0x40, 4032),
    },
    "CommandPage": {
        "command": (0x000, 4),
        "has_error": (0x004, 1),
        "cpu_context": (0x010, 1024),
        "cpu_context.gps": (0x010, 128),
        "cpu_context.fx_state": (0x090, 512),
        "intercept_message": (0x410, 256),
        "intercept_message.payload": (0x420, 240),
        "error": (0x510, 256),
        "error.length": (0x510, 1),
        "error.text": (0x511, 255),
        "request_data": (0x610, 1024),
    },
    "CpuContextX64": {
        "gps": (0x000, 128),
        "fx_state": (0x080, 512),
        "reserved_280": (0x280, 384),
    },
    "GetSetVpRegisterRequest": {
        "count": (0, 2),
        "target_vtl": (2, 1),
        "reserved_3": (3, 1),
        "status": (4, 2),
        "reserved_6": (6, 10),
    },
    "HvRegisterAssoc": {
        "name": (0, 4),
        "reserved_4": (4, 12),
        "value": (16, 8),
        "value_high": (24, 8),
    },
}

SIZES = {
    "SidecarNodeParams": 24,
    "SidecarNodeOutput": 24,
    "PerCpuState": 401,
    "CommandError": 256,
    "ControlPage": 4096,
    "CommandPage": 4096,
    "CpuContextX64": 1024,
    "HvMessage": 256,
    "GetSetVpRegisterRequest": 16,
    "HvRegisterAssoc": 32,
}

STATUSES = {"REMOVED": 0, "IDLE": 1, "RUN": 2, "STOP": 3, "REMOVE": 4}
COMMANDS = {"NONE": 0, "RUN_VP": 1, "GET_VP_REGISTERS": 2, "SET_VP_REGISTERS": 3, "TRANSLATE_GVA": 4}

PAYLOAD_END = {"SidecarParams": 3496, "SidecarOutput": 3328}
"""Bytes that upstream's structure has, rounded to its alignment; everything of this project's stands behind them."""


@pytest.mark.parametrize("name", UPSTREAM)
def test_fields_stand_where_upstream_has_them(name: str) -> None:
    ours = {field.name: (field.offset, field.size) for field in by_name(name).leaves()}
    assert {field: ours.get(field) for field in UPSTREAM[name]} == UPSTREAM[name]


@pytest.mark.parametrize("name", SIZES)
def test_sizes(name: str) -> None:
    assert SIZES[name] == by_name(name).SIZE


@pytest.mark.parametrize("name", PAYLOAD_END)
def test_extensions_stand_behind_upstreams_payload(name: str) -> None:
    known = {field.partition(".")[0] for field in UPSTREAM[name]}
    added = [f for f in by_name(name).fields if f.name not in known and not f.name.startswith("reserved")]
    assert min(field.offset for field in added) >= PAYLOAD_END[name]


def test_extensions_of_control_and_command_page_stand_in_reserved_bytes() -> None:
    control, command = by_name("ControlPage"), by_name("CommandPage")
    assert (control.abi_version, control.abi_hash + 8 + 24) == (0x1C, 0x40)
    assert command.abi_version == 0xA10


def test_status_values_and_commands() -> None:
    assert {name: int(CpuStatus[name]) for name in STATUSES} == STATUSES
    assert {name: int(SidecarCommand[name]) for name in COMMANDS} == COMMANDS
    assert all(member >= 5 for member in CpuStatus if member.name not in STATUSES)
    assert all(member >= 0x100 for member in SidecarCommand if member.name not in COMMANDS)


def test_limits() -> None:
    limits = {"MAX_NODES": 128, "MAX_CPUS": 2048, "MAX_NODE_CPUS": 32, "MAX_REGISTERS": 31, "REQUEST_VECTOR": 0x20}
    assert {name: CONSTANTS[name] for name in limits} == limits
    assert CPU_STATUS_COUNT == 4032


def _ioc(direction: int, number: int, size: int) -> int:
    """Linux's _IOC: direction in bits 30 and 31, size in 16 to 29, type in 8 to 15, number in 0 to 7."""
    return direction << 30 | size << 16 | 0xB8 << 8 | number


def test_ioctl_numbers() -> None:
    none, write, read = 0, 1, 2
    assert {member.name: int(member) for member in Ioctl} == {
        "START": _ioc(none, 0xF0, 0),
        "STOP": _ioc(none, 0xF1, 0),
        "RUN": _ioc(none, 0xF2, 0),
        "INFO": _ioc(read, 0xF3, 12),
        "CLAIM": _ioc(none, 0xF4, 0),
        "RELEASE": _ioc(none, 0xF5, 0),
        "RESTART": _ioc(none, 0xF6, 0),
    }
    assert {member.name: int(member) for member in (*VpIoctl, *VmIoctl)} == {
        "VM_CREATE": _ioc(none, 0xF7, 0),
        "VP_CREATE": _ioc(write, 0xF8, 8),
        "VP_DESTROY": _ioc(none, 0xF9, 0),
        "DOORBELL": _ioc(write, 0xFA, 16),
        "DOORBELL_FD": _ioc(write, 0xFB, 16),
        "MAP": _ioc(write, 0xFC, 32),
        "UNMAP": _ioc(write, 0xFD, 16),
    }


def test_required_memory_has_twelve_pages_per_cpu() -> None:
    """Upstream needs 13 pages per CPU; here 12, one control page, and one window table per 512 pages."""
    pages = {2: 26, 4: 50, 8: 98, 16: 194, 32: 386, 42: 506, 43: 519}
    assert {count: required_memory(count) // 4096 for count in pages} == pages
    assert all(required_memory(count) <= (1 + 13 * count) * 4096 for count in range(2, 2048))
