"""A command page as plain data. See `decode` for the conventions.

The CPU takes a command by replacing it with NONE, so that the page alone does not say which command its data is of. Who
knows passes `command`; without it the data of NONE is shown as hex.

Ref: Hyper-V TLFS, "Virtual Processor Registers" for the register names.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sidecar.layout import (
    MAX_REGISTERS,
    CommandPage,
    GetSetVpRegisterRequest,
    HvRegisterAssoc,
    HvStatus,
    RaiseKind,
    RaiseRequest,
    SidecarCommand,
)
from sidecar.layout.register_table import REGISTERS
from sidecar.layout.run import RunEnd, VpRun
from sidecar.layout.svm import SvmExit
from sidecar.layout.x86 import EXCEPTION_VECTORS
from sidecar.protocol.decode import Decoded, name_of
from sidecar.protocol.fault import REGISTER_NAMES

_NAMES = {register.number: register.name for register in REGISTERS}


def command_page(page: bytes, command: int | None = None) -> Decoded:
    """The command, its answer, and its data as `request`, decoded for `command` or else for the command on the page."""
    parsed = CommandPage.parse(page)
    pending = int(parsed.command)
    kind = pending if command is None else command
    plain = ("sequence", "completed_sequence", "start_tsc", "end_tsc", "abi_version", "abi_hash")
    return {
        "command": name_of(SidecarCommand, pending),
        "has_error": bool(parsed.has_error),
        "error": sentence(parsed.error.length, parsed.error.text) if parsed.has_error else None,
        **{name: int(parsed[name]) for name in plain},
        "request_of": name_of(SidecarCommand, kind),
        "request": request(kind, parsed.request_data),
        "cpu_context": {
            name: int(value)
            for name, value in zip(_CONTEXT_REGISTERS, parsed.cpu_context.gps, strict=True) if value
        },
        "run": _run(parsed.run),
        "intercept": _message(parsed.intercept_message) if parsed.intercept_message.message_type else None,
    }


_CONTEXT_REGISTERS = tuple("cr2" if name == "rsp" else name for name in REGISTER_NAMES)


def sentence(length: int, text: bytes) -> str:
    """The sentence of a CommandError; bytes that are not UTF-8 are shown as such."""
    return text[:length].decode("utf-8", "backslashreplace")


def request(command: int, data: bytes) -> Decoded:
    """The 1024 bytes of request and response as the command defines them; as hex, without trailing zeros, otherwise."""
    decoders: dict[int, Callable[[bytes], Decoded]] = {
        SidecarCommand.RUN_VP: _run_vp,
        SidecarCommand.GET_VP_REGISTERS: _registers,
        SidecarCommand.SET_VP_REGISTERS: _registers,
        SidecarCommand.TRANSLATE_GVA: _translate,
        SidecarCommand.RAISE: _raise,
    }
    return decoders.get(command, _hex)(data)


def _hex(data: bytes) -> Decoded:
    return {"hex": data.rstrip(b"\0").hex()}


def _run_vp(data: bytes) -> Decoded:
    return {"intercept": data[0]}


def _run(run: Any) -> Decoded | None:
    """Inputs and outcome of the last RUN_VP; None if there is nothing."""
    values = {field.name: int(run[field.name]) for field in VpRun.fields if not field.name.startswith("reserved")}
    if not any(values.values()):
        return None
    last = _exit(values["exit_code"]) if values["guest_entries"] or values["exit_code"] else "none"
    return values | {"end": name_of(RunEnd, values["end"]), "exit_code": last}


def _exit(code: int) -> str:
    """As in SvmExit, exceptions by their vector."""
    vector = code - SvmExit.EXCEPTION_0
    if 0 <= vector < EXCEPTION_VECTORS:
        return f"exception {vector}"
    return name_of(SvmExit, SvmExit.INVALID if code == (1 << 64) - 1 else code)


def _registers(data: bytes) -> Decoded:
    """At most 31 registers are shown, whatever the count says."""
    head = GetSetVpRegisterRequest.parse(data)
    size = HvRegisterAssoc.SIZE
    start = GetSetVpRegisterRequest.SIZE
    entries = [
        HvRegisterAssoc.parse(data[start + size * number : start + size * (number + 1)])
        for number in range(min(head.count, MAX_REGISTERS))
    ]
    return {
        "count": int(head.count),
        "target_vtl": int(head.target_vtl),
        "status": name_of(HvStatus, head.status),
        "registers": [
            {
                "name": _NAMES.get(entry.name, f"unknown {entry.name:#x}"),
                "number": int(entry.name),
                "value": entry.value | entry.value_high << 64,
            }
            for entry in entries
        ],
    }


def _translate(data: bytes) -> Decoded:
    """Request and response share their bytes: both readings are given."""
    return {
        "gvn": int.from_bytes(data[0:8], "little"),
        "control_flags": int.from_bytes(data[8:16], "little"),
        "status": name_of(HvStatus, int.from_bytes(data[0:2], "little")),
        "level": int.from_bytes(data[2:4], "little"),
        "output": data[16:80].hex(),
    }


def _raise(data: bytes) -> Decoded:
    parsed = RaiseRequest.parse(data)
    return {"kind": name_of(RaiseKind, parsed.kind), "argument": int(parsed.argument)}


def _message(message: Decoded) -> Decoded:
    size = min(message["payload_size"], len(message["payload"]))
    return {
        "message_type": int(message["message_type"]),
        "payload_size": int(message["payload_size"]),
        "payload": message["payload"][:size].hex(),
    }
