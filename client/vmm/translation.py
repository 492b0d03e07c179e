"""What a linear address of a guest reaches, as TRANSLATE_GVA answers. Ref: TLFS, HvCallTranslateVirtualAddress."""

from __future__ import annotations

from dataclasses import dataclass

from sidecar.client.vmm.fields import Fields
from sidecar.layout.hv import (
    HvPendingEvent,
    HvTranslateFlags,
    HvTranslateResult,
    TranslateGvaRequest,
    TranslateGvaResponse,
)
from sidecar.layout.schema import PAGE_SIZE

PAGE_SHIFT = PAGE_SIZE.bit_length() - 1
_ANSWER = Fields(TranslateGvaResponse, "result_code", "event_info", "gpa_page")


@dataclass(frozen=True, slots=True)
class GuestFault:
    """The exception that the access would have raised; address is a page fault's."""

    vector: int
    error_code: int | None
    address: int


@dataclass(frozen=True, slots=True)
class Translation:
    """result is an HvTranslateResult; gpa is right for SUCCESS and for the GPA_… results."""

    result: int
    gpa: int
    fault: GuestFault | None

    @property
    def reached(self) -> bool:
        """Did the guest's page tables allow the access, whatever stands at the address?"""
        return self.result in (
            HvTranslateResult.SUCCESS, HvTranslateResult.GPA_UNMAPPED, HvTranslateResult.GPA_NO_READ_ACCESS,
            HvTranslateResult.GPA_NO_WRITE_ACCESS,
        )  # fmt: skip


def translation_request(gva: int, *, write: bool, execute: bool) -> bytes:
    """The request data; sets accessed and dirty bits as the access would."""
    flags = HvTranslateFlags.SET_PAGE_TABLE_BITS | HvTranslateFlags.VALIDATE_READ
    if write:
        flags |= HvTranslateFlags.VALIDATE_WRITE
    if execute:
        flags |= HvTranslateFlags.VALIDATE_EXECUTE
    return TranslateGvaRequest.build(gvn=gva >> PAGE_SHIFT, control_flags=int(flags))


def translation_of(gva: int, answer: bytes) -> Translation:
    """The answer's data."""
    result, event, address, _, _, page = _ANSWER(answer)
    fault = None
    if event & HvPendingEvent.PENDING:
        code = event >> 32 if event & HvPendingEvent.DELIVER_ERROR_CODE else None
        fault = GuestFault(event >> 16 & 0xFFFF, code, address)
    return Translation(result, page << PAGE_SHIFT | gva & PAGE_SIZE - 1, fault)
