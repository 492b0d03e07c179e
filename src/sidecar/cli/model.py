"""`sidecar model`: spin searches every state of the hand-over protocol, and finds known defects that are put back."""

import argparse
from pathlib import Path

from sidecar.cli.parser import Commands
from sidecar.cli.progress import tell
from sidecar.errors import UserError
from sidecar.protocol.model import scenarios, spin
from sidecar.protocol.model.scenarios import Defect, Scenario

DIRECTORY = Path("build/model")
SCENARIOS = {scenario.name: scenario for scenario in (*scenarios.SHORT, *scenarios.LONG)}
DEFECTS = {defect.name.lower().replace("_", "-"): defect for defect in Defect}


def add(commands: Commands) -> None:
    parser = commands.add_parser(
        "model",
        help="search every state of the protocol's model with spin",
        description="Searches the scenarios, in which no state may be wrong, and puts back the known defects, which "
        "must be found. The exit status is 0 if every answer is the expected one, else 1.",
    )
    parser.add_argument("names", metavar="NAME", nargs="*", help=f"one of {', '.join([*SCENARIOS, *DEFECTS])}")
    parser.add_argument("--short", action="store_true", help="only what takes seconds")
    parser.add_argument("--text", action="store_true", help="print the model in Promela")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    if options.text:
        print(scenarios.promela())
        return 0
    names = options.names or [*DEFECTS, *(scenario.name for scenario in scenarios.SHORT)]
    if not options.names and not options.short:
        names += [scenario.name for scenario in scenarios.LONG]
    return max([search(name) for name in names])


def search(name: str) -> int:
    """Prints one line, and the way to an error that should not be; 1 if the answer is not the expected one."""
    scenario, defect = chosen(name)
    if scenario.long:
        tell(f"searching {name}; this takes minutes, and up to {spin.MEGABYTES} MB")
    outcome = spin.search(scenario, DIRECTORY / name, defect=defect)
    found = outcome.error or "no error"
    print(f"{name}: {found}; {outcome.states} states, {outcome.megabytes:.0f} MB, {outcome.seconds:.1f} s", flush=True)
    if (outcome.error is None) == (defect is None):
        return 0
    print(outcome.trail or f"expected an error: {defect.why if defect else ''}")
    return 1


def chosen(name: str) -> tuple[Scenario, Defect | None]:
    """Raises UserError for a name that neither a scenario nor a defect has."""
    if defect := DEFECTS.get(name):
        return defect.scenario, defect
    try:
        return SCENARIOS[name], None
    except KeyError:
        raise UserError(f"no scenario or defect '{name}'; there are {', '.join([*SCENARIOS, *DEFECTS])}") from None
