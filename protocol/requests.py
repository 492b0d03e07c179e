"""What stands in a command page's request and answer: registers by name, batches, faults on purpose.

A typed command is a dialogue: a generator that yields requests, is sent their answers' data, and returns its result.
Whoever executes requests, and be it by awaiting them, can hold it; so each command is written once.
"""

from __future__ import annotations

import struct
from collections.abc import Generator, Iterable, Iterator, Mapping
from itertools import islice
from typing import NamedTuple, TypeAlias, TypeVar

from sidecar.layout.abi import MAX_REGISTERS
from sidecar.layout.command import (
    CommandPage,
    GetSetVpRegisterRequest,
    HvRegisterAssoc,
    HvStatus,
    RaiseRequest,
    SidecarCommand,
)
from sidecar.layout.register_table import REGISTERS
from sidecar.protocol.translation import Translation, read_translation, translate_request

REGISTER_NUMBERS = {register.name: register.number for register in REGISTERS}
WITHOUT_VP = tuple(register.name for register in REGISTERS if not register.needs_vp)
"""What every CPU has; the others are known while it has a virtual processor."""
WIDE = frozenset(register.name for register in REGISTERS if register.wide)
"""Registers of 128 bits."""
DATA_BYTES = CommandPage.request_data.SIZE
MASK_64 = (1 << 64) - 1

T = TypeVar("T")
Register = TypeVar("Register", str, int, str | int)
"""A register by its TLFS name, or by its number."""


class Request(NamedTuple):
    """A command, and what goes into request_data."""

    command: int
    data: bytes = b""


Dialogue: TypeAlias = Generator[Request, bytes, T]


def none() -> Dialogue[None]:
    yield Request(SidecarCommand.NONE)


def get_registers(names: Iterable[Register]) -> Dialogue[dict[Register, int]]:
    values: dict[Register, int] = {}
    for batch in batches(names):
        pairs = [(register_number(name), 0) for name in batch]
        answer = yield Request(SidecarCommand.GET_VP_REGISTERS, register_request(pairs))
        values |= zip(batch, register_values(answer, len(batch)), strict=True)
    return values


def set_registers(values: Mapping[Register, int]) -> Dialogue[None]:
    for batch in batches(values.items()):
        pairs = [(register_number(name), value) for name, value in batch]
        yield Request(SidecarCommand.SET_VP_REGISTERS, register_request(pairs))


def translate(linear: int, flags: int = 0) -> Dialogue[Translation]:
    """`flags` are HvTranslateFlags."""
    answer = yield Request(SidecarCommand.TRANSLATE_GVA, translate_request(linear, flags))
    return read_translation(answer, linear)


def raise_fault(kind: int, argument: int = 0) -> Dialogue[None]:
    yield Request(SidecarCommand.RAISE, raise_request(kind, argument))


def register_request(pairs: Iterable[tuple[int, int]], *, count: int | None = None, target_vtl: int = 0) -> bytes:
    """The request data of GET and SET; `count` and `target_vtl` may lie, for tests."""
    entries = [
        HvRegisterAssoc.build(name=number, value=value & MASK_64, value_high=value >> 64) for number, value in pairs
    ]
    shown = len(entries) if count is None else count
    return GetSetVpRegisterRequest.build(count=shown, target_vtl=target_vtl, status=0) + b"".join(entries)


def raise_request(kind: int, argument: int = 0) -> bytes:
    """The request data of RAISE."""
    return RaiseRequest.build(kind=kind, argument=argument)


def register_number(name: str | int) -> int:
    """Raises ValueError for a name that no register has."""
    if isinstance(name, int):
        return name
    try:
        return REGISTER_NUMBERS[name]
    except KeyError:
        raise ValueError(f"no register {name!r}; there are {', '.join(REGISTER_NUMBERS)}") from None


def register_values(answer: bytes, count: int) -> list[int]:
    """The values of the first `count` entries in the answer of GET."""
    start, size = GetSetVpRegisterRequest.SIZE, HvRegisterAssoc.SIZE
    offset = int(HvRegisterAssoc.value)
    entries = (struct.unpack_from("<QQ", answer, start + n * size + offset) for n in range(count))
    return [low | high << 64 for low, high in entries]


def refusal(answer: bytes) -> str | None:
    """Why GET or SET stopped, in words; None if it did not."""
    (status,) = struct.unpack_from("<H", answer, int(GetSetVpRegisterRequest.status))
    if status == HvStatus.SUCCESS:
        return None
    names = {int(known): known.name for known in HvStatus}
    return f"status {status:#x} {names.get(status, '(unknown)')}"


def batches(items: Iterable[T]) -> Iterator[list[T]]:
    """As many items as fit into one GET or SET, again and again."""
    iterator = iter(items)
    while batch := list(islice(iterator, MAX_REGISTERS)):
        yield batch


def command_name(command: int) -> str:
    """The command's name, or its number where the ABI knows none."""
    try:
        return SidecarCommand(command).name
    except ValueError:
        return f"command {command:#x}"
