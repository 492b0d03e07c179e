"""`sidecar fuzz`: random behaviour of a driver against a machine without Linux, for as long as you like."""

import argparse
import itertools
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from sidecar.cli.machine_options import add_machine_options, make_session, print_failure
from sidecar.cli.parser import Commands, positive
from sidecar.errors import UserError
from sidecar.protocol import recorder
from sidecar.qemu.fuzz.player import Difference, Player
from sidecar.qemu.fuzz.steps import Step, steps
from sidecar.qemu.machine import MachineDied

TELL_SECONDS = 10.0
SHOWN = 8


def add(commands: Commands) -> None:
    parser = commands.add_parser(
        "fuzz",
        help="random commands, faults and misuse against a model",
        description="Boots a machine without Linux and does to its sidecar CPUs, at random, what a driver may do and "
        "what it should not; a model in Python says what must come of it. Exit status 1 at the first difference, with "
        "what reproduces it.",
    )
    add_machine_options(parser)
    parser.add_argument("--minutes", type=positive, default=1, metavar="M", help="how long (default 1)")
    parser.add_argument("--seed", type=int, metavar="S", help="of the steps; default: another one each time")
    parser.add_argument("--steps", type=positive, metavar="N", help="end after N steps")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="play the steps of this file, one in a line")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    seed = random.SystemRandom().getrandbits(32) if options.seed is None else options.seed
    with make_session(options, tests=True) as session:
        player = Player(session)
        if options.replay:
            chosen = replayed(options.replay, set(session.cpus))
        else:
            chosen = steps(seed, list(session.cpus))
            print(f"sidecar: seed {seed}, {len(session.cpus)} CPUs", file=sys.stderr)
        try:
            play(player, itertools.islice(chosen, options.steps), options.minutes * 60)
        except (Difference, MachineDied) as error:
            print_failure(error)
            print("\n".join(reproducer(options, seed, player)))
            return 1
    print(f"{len(player.played)} steps on {len(session.cpus)} CPUs, no difference")
    return 0


def play(player: Player, chosen: Iterator[Step], seconds: float) -> None:
    """Until the time is over or the steps are; tells now and then how far it is."""
    started = told = time.monotonic()
    for step in chosen:
        now = time.monotonic()
        if now - started >= seconds:
            return
        if now - told >= TELL_SECONDS:
            rate = len(player.played) / (now - started)
            print(f"sidecar: {len(player.played)} steps, {rate:.0f}/s", file=sys.stderr, flush=True)
            told = now
        player.play(step)


def replayed(file: Path, cpus: set[int]) -> Iterator[Step]:
    """The steps of a file. Raises UserError for a line that is none."""
    try:
        lines = file.read_text().split()
    except OSError as error:
        raise UserError(f"--replay {file}: {error.strerror}") from error
    chosen = []
    for number, line in enumerate(lines, 1):
        try:
            step = Step.parse(line)
        except ValueError as error:
            raise UserError(
                f"--replay {file}, step {number}: expected action:cpu:argument such as none:1:0x0, got {line!r}"
            ) from error
        if step.cpu not in cpus:
            raise UserError(f"--replay {file}, step {number}: the machine has no sidecar CPU {step.cpu}; see --smp")
        chosen.append(step)
    return iter(chosen)


def reproducer(options: argparse.Namespace, seed: int, player: Player) -> list[str]:
    """How to come there again, and what the CPU did last."""
    last = player.played[-1]
    told = [f"the last {SHOWN} steps: {' '.join(map(str, player.played[-SHOWN:]))}"]
    try:
        page = player.session.driver.diagnostic_page(last.cpu)
        events = [f"{one.number} {one.what}" for one in recorder.events(page)[-SHOWN:]]
        told.append(f"the last events of CPU {last.cpu}: {', '.join(events)}")
    except Exception as error:  # the machine may be gone: what is known is told all the same
        told.append(f"its events cannot be read: {error}")
    if options.replay:
        return [*told, f"again: sidecar fuzz --smp {options.smp} --replay {options.replay}"]
    count = len(player.played)
    return [*told, f"again: sidecar fuzz --smp {options.smp} --seed {seed} --steps {count} --minutes {options.minutes}"]
