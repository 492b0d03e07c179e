"""The contract in a routine's docstring, taken apart: In, Out, Clobbers, Interrupts, Stack.

    In: rdi buffer, ecx its bytes. Out: eax bytes written. Clobbers: rcx, r8 to r11. Interrupts: any. Stack: 56 bytes.
"""

import inspect
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass

from tests.support.control_flow import GENERAL, WHOLE

_PART = re.compile(r"\b(In and out|In|Out|Clobbers|Interrupts|Stack): ")
_RANGE = re.compile(r"\br(\d+) to r(\d+)\b")
_BYTES = re.compile(r"(none|\d+ bytes)(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Contract:
    """The parts that are there, as written, without their heads."""

    parts: dict[str, str]

    @property
    def clobbers(self) -> frozenset[str] | None:
        """Registers that may change, results included; None if the text does not list them."""
        text = self.parts.get("Clobbers")
        if text is None or not _registers(text) or re.match(r"all|everything|as|the rest", text):
            return None
        return frozenset().union(*(_registers(self.parts.get(part, "")) for part in ("Clobbers", "Out", "In and out")))

    def leads_to(self, labels: Collection[str]) -> list[str]:
        """The labels at which it may end instead of returning."""
        return [word for word in re.findall(r"\w+", self.parts.get("Out", "")) if word in labels]

    @property
    def stack(self) -> tuple[int, bool] | None:
        """Bytes of stack, and whether they are all (not: "and those of its callees"); None if no number is given."""
        match = _BYTES.match(self.parts.get("Stack", ""))
        if match is None:
            return None
        return 0 if match[1] == "none" else int(match[1].split()[0]), not re.match(r"\s+and\b", match[2])


def contract(routine: Callable[[], str]) -> Contract:
    """What the docstring of a routine promises."""
    pieces = _PART.split(inspect.getdoc(routine) or "")
    return Contract(dict(zip(pieces[1::2], pieces[2::2], strict=True)))


def _registers(text: str) -> frozenset[str]:
    """The general registers that a text names, also as `r8 to r11`; up to its first full stop."""
    text = re.split(r"\.\s|\.$", text)[0]
    found = {WHOLE[word] for word in re.findall(r"\w+", text) if word in WHOLE}
    for first, last in _RANGE.findall(text):
        found |= set(GENERAL[int(first) : int(last) + 1])
    return frozenset(found)
