"""The shim's routines on an emulated CPU, and how they end: by returning, with a reason to fall back, or for good."""

import re
from functools import cache

from sidecar.builder import image
from tests.support.emulator import STACK, Emulator, Outcome

RAM = range(0x40_0000, 0x60_0000)
"""Memory behind the shim, for tables, bundles and whatever else a routine reads."""

MAIN_STACK = STACK.stop - 0x800
"""Where `no_sidecar` goes back to: below what a test's call uses."""

FELL_BACK, ENDED = "after_sidecar", "end_machine"


@cache
def _shim() -> Emulator:
    return Emulator(image.shim(), memory=(RAM,), stops=(FELL_BACK, ENDED))


def fresh() -> Emulator:
    """The shim as it was loaded, with nothing in RAM."""
    shim = _shim()
    shim.reset()
    shim.write("main_stack", MAIN_STACK)
    return shim


def changed(shim: Emulator) -> set[str]:
    """The variables that a routine has changed."""
    return shim.changed() - {"main_stack"}


def returned(shim: Emulator, outcome: Outcome) -> Outcome:
    """The outcome, of a routine that returned."""
    assert not outcome.stop, shim.console
    return outcome


def fallback(shim: Emulator, outcome: Outcome) -> str:
    """The reason why the sidecar is not used."""
    assert outcome.stop == FELL_BACK, f"expected a fall-back, got {outcome.stop or 'a return'}: {shim.console}"
    return _last(shim, r"shim: not using the sidecar: (.*)\n")


def fatal(shim: Emulator, outcome: Outcome) -> str:
    """The sentence with which the machine ended."""
    assert outcome.stop == ENDED, f"expected the end, got {outcome.stop or 'a return'}: {shim.console}"
    return _last(shim, r"shim: fatal: (.*)\n")


def notes(shim: Emulator) -> list[str]:
    """What the user should know though the boot goes on."""
    return re.findall(r"shim: note: (.*)\n", shim.console)


def _last(shim: Emulator, pattern: str) -> str:
    """The one sentence of the console, which is its last line."""
    match = re.fullmatch(rf"(?:shim: note: .*\n)*{pattern}", shim.console)
    assert match is not None, shim.console
    return match[1]
