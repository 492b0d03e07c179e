"""spin searches every state of a scenario: generate, compile, run, read what it says.

Everything stays in the directory: model.pml, pan.c, what pan said, and, after an error, trail.txt with the way to it.
Ref: spin's manual pages `spin`, `pan`; Holzmann, "The Spin Model Checker", chapters 11 and 19.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sidecar.errors import UserError
from sidecar.layout.control import Transition
from sidecar.protocol.model.scenarios import Defect, Scenario, covered, promela

MEGABYTES = 3800
COMPILE_SECONDS = 120.0
TRAIL_LINES = 25
HASH_BITS = 24

_ERRORS = re.compile(r"errors: (\d+)")
_STATES = re.compile(r"^ *([\d.e+]+) states, stored", re.MULTILINE)
_MEMORY = re.compile(r"^ *([\d.]+)\ttotal actual memory usage", re.MULTILINE)
_MESSAGE = re.compile(r"^pan:1: (.+?) \(at depth \d+\)", re.MULTILINE)
_STEP = re.compile(r"\d+: ")
_COVERED = re.compile(r"^covered (\d+)$", re.MULTILINE)


class ModelError(UserError):
    """spin could not be asked, or did not come to an answer."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """`error` is None if every state was visited and none is wrong; `trail` are the last steps on the way to it."""

    error: str | None
    trail: str
    states: int
    megabytes: float
    seconds: float
    covered: frozenset[Transition]


def search(scenario: Scenario, directory: Path, *, defect: Defect | None = None) -> Outcome:
    """All states of the scenario, or those up to the first wrong one. Raises ModelError."""
    for program in ("spin", "gcc"):
        if shutil.which(program) is None:
            raise ModelError(f"{program} is not on PATH; `tools/setup system` installs it")
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "model.pml").write_text(promela(), encoding="utf-8")
    (directory / "model.pml.trail").unlink(missing_ok=True)
    defines = [*scenario.defines, *([f"-D{defect.name}"] if defect else [])]
    _run(["spin", "-a", *defines, "model.pml"], directory, COMPILE_SECONDS)
    optimise = "-O2" if scenario.long and defect is None else "-O0"      # compiling takes longer than a short search
    options = ["-DNP" if scenario.cycles else "-DSAFETY", "-DCOLLAPSE", f"-DMEMLIM={MEGABYTES}", "-DVECTORSZ=2048"]
    _run(["gcc", optimise, "-w", *options, "-o", "pan", "pan.c"], directory, COMPILE_SECONDS)
    started = time.monotonic()
    how = ["-l"] if scenario.cycles else []
    said = _run(["./pan", *how, f"-m{scenario.depth}", f"-w{HASH_BITS}"], directory, scenario.seconds)
    seconds = time.monotonic() - started
    (directory / "pan.txt").write_text(said, encoding="utf-8")
    error = read_error(said)
    return Outcome(
        error=error,
        trail=_trail(defines, directory) if error else "",
        states=int(float(_found(_STATES, said))),
        megabytes=float(_found(_MEMORY, said)),
        seconds=seconds,
        covered=covered({int(number) for number in _COVERED.findall(said)}),
    )


def read_error(said: str) -> str | None:
    """What pan found wrong, None if nothing is. Raises ModelError if it did not visit every state."""
    if message := _MESSAGE.search(said):
        return message.group(1)
    for limit in ("max search depth too small", "reached -DMEMLIM bound", "out of memory", "Search not completed"):
        if limit in said:
            raise ModelError(f"spin has not visited every state of the model: {limit}")
    errors = _found(_ERRORS, said)
    return None if errors == "0" else f"{errors} errors without a message"


def _found(pattern: re.Pattern[str], said: str) -> str:
    match = pattern.search(said)
    if match is None:
        raise ModelError(f"pan's answer has nothing like {pattern.pattern!r}; it ends: {said[-200:]!r}")
    return match.group(1)


def _trail(defines: Sequence[str], directory: Path) -> str:
    """The way to the error, replayed by pan itself, since spin cannot execute the C code in the model."""
    text = _run(["./pan", "-C"], directory, COMPILE_SECONDS)
    (directory / "trail.txt").write_text(text, encoding="utf-8")
    return "\n".join([line for line in text.splitlines() if _STEP.match(line)][-TRAIL_LINES:])


def _run(command: Sequence[str], directory: Path, seconds: float) -> str:
    """The program's output, at the lowest priority that is usual. Raises ModelError."""
    line = " ".join(command)
    try:
        run = subprocess.run(
            ["nice", "-n", "10", *command], cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            timeout=seconds, check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ModelError(f"`{line}` in {directory} did not end within {seconds:g} s") from error
    if run.returncode and command[0] != "./pan":
        raise ModelError(f"`{line}` in {directory} ended with status {run.returncode}: {run.stdout[-500:]}")
    return run.stdout
