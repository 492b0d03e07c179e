"""The decoders on pages that are right, and on pages that no sidecar would write."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.layout import (
    IMAGE_VA,
    PAGE_SIZE,
    CommandPage,
    ControlPage,
    CpuStatus,
    DiagnosticPage,
    GetSetVpRegisterRequest,
    HvRegisterAssoc,
    LogRing,
    RaiseKind,
    RaiseRequest,
    SidecarCommand,
)
from sidecar.layout.diagnostics import LOG_TEXT_BYTES
from sidecar.layout.run import RunEnd
from sidecar.layout.svm import SvmExit
from sidecar.protocol import decode, decode_command, render
from tests.support.synthetic import array, page


def test_control_page_names_cpus_and_statuses() -> None:
    status = {0: 0, 1: CpuStatus.IDLE, 2: CpuStatus.FAULTED, 3: 0x99, 100: CpuStatus.RUN}
    decoded = decode.control_page(page(
        ControlPage, index=1, base_cpu=32, cpu_count=4, response_cpu=7, cpu_status=array(4032, status),
    ))
    assert decoded["response_cpu"] == 7
    assert decoded["cpus"] == [
        {"linux_number": 32, "index": 0, "status": "removed"},
        {"linux_number": 33, "index": 1, "status": "idle"},
        {"linux_number": 34, "index": 2, "status": "faulted"},
        {"linux_number": 35, "index": 3, "status": "unknown 0x99"},
    ]
    assert decoded["beyond"] == [{"index": 100, "status": "run"}]


def test_boot_record_in_microseconds_since_the_first_init() -> None:
    data = page(DiagnosticPage, boot__arrivals=2, boot__started_by_it=3,
                boot__stamps=[2_000_000, 2_002_500, 2_005_000, 0, 0, 0, 2_100_000, 0])
    decoded = decode.boot_record(data, first_init_tsc=1_500_000, tsc_khz=2_500_000)
    assert decoded["arrivals"] == 2
    assert decoded["phases"] == {
        "trampoline": 200.0, "long_mode": 201.0, "found": 202.0, "mapped": None, "apic": None, "fan_out": None,
        "idle": 240.0,
    }


@pytest.mark.parametrize(("arrivals", "tsc_khz"), [(0, 1000), (1, 0)])
def test_boot_record_of_a_cpu_that_never_arrived_or_without_a_clock(arrivals: int, tsc_khz: int) -> None:
    data = page(DiagnosticPage, boot__arrivals=arrivals, boot__stamps=[5] * 8)
    decoded = decode.boot_record(data, first_init_tsc=1, tsc_khz=tsc_khz)
    assert set(decoded["phases"].values()) == {None}


def fault(**values: Any) -> bytes:
    return page(DiagnosticPage, **{f"fault__{name}": value for name, value in ({"count": 1} | values).items()})


def test_fault_record() -> None:
    data = fault(vector=14, error_code=2, rip=IMAGE_VA + 0x1234, cr2=0x1000, registers=list(range(16)),
                 status=CpuStatus.RUN, command=SidecarCommand.RAISE)
    decoded = decode.fault_record(data, lambda offset: f"routine+{offset:#x}")
    assert (decoded["exception"], decoded["cr2"]) == ("#PF", 0x1000)
    assert decoded["error_bits"] == ["page not present", "write", "supervisor"]
    assert decoded["where"] == "routine+0x1234"
    assert (decoded["registers"]["rcx"], decoded["registers"]["r15"]) == (1, 15)
    assert (decoded["status"], decoded["command"]) == ("run", "raise")


def test_fault_record_without_a_fault_or_a_place() -> None:
    assert decode.fault_record(fault(count=0, vector=14)) == {"count": 0}
    assert decode.fault_record(fault(rip=IMAGE_VA))["where"] is None
    assert decode.fault_record(fault(rip=0x8000), hex)["where"] is None


def test_nested_fault_has_no_registers() -> None:
    decoded = decode.fault_record(fault(vector=8, nested=1, rip=IMAGE_VA, registers=[7] * 16))
    assert decoded["nested"]
    assert "registers" not in decoded
    assert (decoded["vector"], decoded["rip"]) == (8, IMAGE_VA)


@pytest.mark.parametrize(("vector", "code", "words"), [
    (14, 0x1, ["protection violation", "read", "supervisor"]),
    (14, 0x1D, ["protection violation", "instruction fetch", "user", "reserved bit set"]),
    (13, 0x30, ["GDT selector 0x30"]),
    (11, 0x35, ["LDT selector 0x30", "external event"]),
    (13, 0x102, ["IDT gate 0x20"]),
    (13, 0, []),
    (0, 5, []),
])
def test_error_codes(vector: int, code: int, words: list[str]) -> None:
    assert decode.error_bits(vector, code) == words


def test_counters_show_the_stray_vectors_that_happened() -> None:
    data = page(DiagnosticPage, counters__commands=9, counters__stray=array(256, {0x21: 3, 0xFE: 1}))
    assert decode.counters(data) == {
        "commands": 9, "requests": 0, "spurious": 0, "errors": 0, "removals": 0, "timer": 0,
        "stray": {"0x21": 3, "0xfe": 1},
    }


def ring(text: bytes) -> bytes:
    """A ring into which all of `text` was written."""
    kept = bytearray(LOG_TEXT_BYTES)
    for position in range(max(0, len(text) - LOG_TEXT_BYTES), len(text)):
        kept[position % LOG_TEXT_BYTES] = text[position]
    return page(LogRing, written=len(text), text=bytes(kept))


@pytest.mark.parametrize(("text", "lines", "cut", "is_open"), [
    (b"", [], False, False),
    (b"one\ntwo\n", ["one", "two"], False, False),
    (b"one\ntw", ["one", "tw"], False, True),
    (b"\n", [""], False, False),
    (b"x" * (LOG_TEXT_BYTES - 1) + b"\n", ["x" * (LOG_TEXT_BYTES - 1)], False, False),
])
def test_log_ring(text: bytes, lines: list[str], cut: bool, is_open: bool) -> None:
    assert decode.log_ring(ring(text)) == {"written": len(text), "cut": cut, "open": is_open, "lines": lines}


def test_log_ring_that_has_wrapped() -> None:
    text = b"".join(b"line %d\n" % number for number in range(2000))
    decoded = decode.log_ring(ring(text))
    assert decoded["cut"]
    assert not decoded["open"]
    assert decoded["lines"][-2:] == ["line 1998", "line 1999"]
    assert "\n".join([*decoded["lines"], ""]).encode() == text[-LOG_TEXT_BYTES:]


def test_command_page_with_registers() -> None:
    head = GetSetVpRegisterRequest.build(count=2, target_vtl=0, status=5)
    entries = (HvRegisterAssoc.build(name=0x50000, value=0x1234, value_high=0)
               + HvRegisterAssoc.build(name=0x99, value=1, value_high=1))
    data = page(CommandPage, command=SidecarCommand.GET_VP_REGISTERS, sequence=7, completed_sequence=6,
                request_data=(head + entries).ljust(1024, b"\0"))
    decoded = decode_command.command_page(data)
    assert (decoded["command"], decoded["request_of"]) == ("get_vp_registers", "get_vp_registers")
    assert decoded["request"] == {
        "count": 2, "target_vtl": 0, "status": "invalid_parameter", "registers": [
            {"name": "HvX64RegisterDr0", "number": 0x50000, "value": 0x1234},
            {"name": "unknown 0x99", "number": 0x99, "value": 1 << 64 | 1},
        ],
    }


def test_command_page_after_the_command_was_taken() -> None:
    data = page(CommandPage, command=0, request_data=RaiseRequest.build(
        kind=RaiseKind.VECTOR, argument=0x40).ljust(1024, b"\0"))
    assert decode_command.command_page(data)["request"] == {"hex": "000100000000000040"}
    assert decode_command.command_page(data, SidecarCommand.RAISE)["request"] == {"kind": "vector", "argument": 0x40}


def test_command_page_with_an_error_and_an_intercept() -> None:
    data = page(CommandPage, command=0x1234, has_error=1, error__length=5, error__text=b"no \xff!".ljust(255, b"\0"),
                intercept_message__message_type=0x80010000, intercept_message__payload_size=2,
                intercept_message__payload=b"\1\2".ljust(240, b"\0"), cpu_context__gps=array(16, {0: 1, 4: 2}))
    decoded = decode_command.command_page(data)
    assert decoded["command"] == "unknown 0x1234"
    assert decoded["error"] == "no \\xff!"
    assert decoded["cpu_context"] == {"rax": 1, "cr2": 2}
    assert decoded["intercept"] == {"message_type": 0x80010000, "payload_size": 2, "payload": "0102"}


def test_what_a_run_was_given_and_how_it_ended() -> None:
    data = page(CommandPage, run__time_limit=0x1000, run__advance_rip=2, run__end=RunEnd.INTERCEPT, run__local_exits=3,
                run__exit_code=SvmExit.CPUID, run__rip=0xFFF0, run__efer=0xD00, run__cpl=3)
    run = decode_command.command_page(data)["run"]
    assert {name: value for name, value in run.items() if value != 0} == {
        "time_limit": 0x1000, "advance_rip": 2, "end": "intercept", "local_exits": 3, "exit_code": "cpuid",
        "rip": 0xFFF0, "efer": 0xD00, "cpl": 3,
    }  # fmt: skip
    assert not [name for name in run if name.startswith("reserved")]
    assert decode_command.command_page(page(CommandPage))["run"] is None


@pytest.mark.parametrize(("code", "entries", "name"), [
    ((1 << 64) - 1, 1, "invalid"), (0x4D, 1, "exception 13"), (0x5F, 1, "exception 31"), (0, 1, "cr0_read"),
    (0, 0, "none"), (0x12345, 0, "unknown 0x12345"),
])  # fmt: skip
def test_the_last_exit_of_a_run(code: int, entries: int, name: str) -> None:
    data = page(CommandPage, run__end=77, run__exit_code=code, run__guest_entries=entries)
    run = decode_command.command_page(data)["run"]
    assert (run["end"], run["exit_code"]) == ("unknown 0x4d", name)


def test_a_run_is_rendered() -> None:
    entry = {"linux_number": 1, "apic_id": 1, "node": 0, "index": 1}
    data = page(CommandPage, run__end=RunEnd.NOTIFIED, run__notifications=0x80, run__exit_code=SvmExit.INTR)
    text = render.command(entry | decode_command.command_page(data))
    found = dict(line.rsplit(maxsplit=1) for line in text.splitlines() if line.startswith("run "))
    assert {name.strip(): value for name, value in found.items() if value != "0x0"} == {
        "run end": "notified", "run notifications": "0x80", "run exit_code": "intr",
    }  # fmt: skip
    nothing = render.command(entry | decode_command.command_page(page(CommandPage)))
    assert "run end" not in nothing


def test_other_commands() -> None:
    data = (5).to_bytes(8, "little") + (9).to_bytes(8, "little") + bytes(1008)
    assert decode_command.request(SidecarCommand.TRANSLATE_GVA, data) == {
        "gvn": 5, "control_flags": 9, "status": "invalid_parameter", "level": 0, "output": "00" * 64,
    }
    assert decode_command.request(SidecarCommand.RUN_VP, b"\1" + bytes(1023)) == {"intercept": 1}


def test_more_registers_than_fit_are_not_followed() -> None:
    data = GetSetVpRegisterRequest.build(count=0xFFFF, target_vtl=0, status=0).ljust(1024, b"\0")
    decoded = decode_command.request(SidecarCommand.SET_VP_REGISTERS, data)
    assert (decoded["count"], len(decoded["registers"])) == (0xFFFF, 31)


@given(st.binary(min_size=1, max_size=300), st.sampled_from(list(SidecarCommand)))
def test_any_page_can_be_decoded_and_is_json(pattern: bytes, command: SidecarCommand) -> None:
    data = (pattern * PAGE_SIZE)[:PAGE_SIZE]
    for decoded in (
        decode.control_page(data),
        decode.boot_record(data, first_init_tsc=1, tsc_khz=1),
        decode.fault_record(data, hex),
        decode.counters(data),
        decode.log_ring(data),
        decode_command.command_page(data, command),
    ):
        json.dumps(decoded)
