"""TRANSLATE_GVA as Python has it: the request, and what the answer says.

    answer = cpu.translate(0xFFFF_8000_0000_1234, HvTranslateFlags.VALIDATE_WRITE)
    if answer.result == HvTranslateResult.SUCCESS: answer.gpa
"""

from __future__ import annotations

from dataclasses import dataclass

from sidecar.layout.hv import (
    HvCacheType,
    HvPendingEvent,
    HvTranslateResult,
    TranslateGvaRequest,
    TranslateGvaResponse,
)

_PAGE_SHIFT = 12
_WITHIN = (1 << _PAGE_SHIFT) - 1


@dataclass(frozen=True, slots=True)
class RaisedException:
    """The exception that an access would have raised; `address` is that of a page fault."""

    vector: int
    error_code: int
    address: int


@dataclass(frozen=True, slots=True)
class Translation:
    """Where a linear address leads. With `level` 0 the walk got to the page, and `gpa` is the address's, also if the
    guest has no such page or may not use it; else `gpa` is the page of the guest's table of that level, which ended it.
    """

    result: HvTranslateResult
    gpa: int
    level: int
    cache_type: HvCacheType
    exception: RaisedException | None


def translate_request(linear: int, flags: int = 0) -> bytes:
    """The request data for the page of a linear address."""
    return TranslateGvaRequest.build(gvn=linear >> _PAGE_SHIFT, control_flags=flags)


def read_translation(answer: bytes, linear: int) -> Translation:
    """The answer to translate_request() of the same address."""
    parsed = TranslateGvaResponse.parse(answer[: TranslateGvaResponse.SIZE])
    level, event = int(parsed.level), int(parsed.event_info[0])
    exception = None
    if event & HvPendingEvent.PENDING:
        exception = RaisedException(event >> 16 & 0xFFFF, event >> 32, int(parsed.event_info[1]))
    return Translation(
        HvTranslateResult(parsed.result_code), int(parsed.gpa_page) << _PAGE_SHIFT | (0 if level else linear & _WITHIN),
        level, HvCacheType(parsed.cache_type), exception,
    )  # fmt: skip
