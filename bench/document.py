"""docs/performance.md, written from the figures of one run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sidecar.bench.figures import Figure, Group, Table
from sidecar.protocol.render import columns

HEAD = """# Performance

Every figure here was printed by the command above its table, in one run on the host named below; medians, with the
range of all measurements beside them. Times under TCG are host times: few cores carry all virtual CPUs, so compare
figures of one run with each other and with nothing else.
"""


@dataclass(frozen=True, slots=True)
class Run:
    """What is told of the run as a whole."""

    where: str
    command: str
    minutes: float
    loads: tuple[float, float]  # load average of the host at begin and end
    left_out: tuple[str, ...] = ()


def document(groups: Sequence[Group], run: Run) -> str:
    """The whole document."""
    return "\n".join(_lines(groups, run)) + "\n"


def _lines(groups: Sequence[Group], run: Run) -> Iterator[str]:
    yield HEAD
    yield (f"Host: {run.where}; load average {run.loads[0]:.1f} at the begin and {run.loads[1]:.1f} at the end. "
           f"All of it, in {run.minutes:.0f} minutes:\n\n    {run.command}")
    if run.left_out:
        yield "\nIn this run there was no time for: " + "; ".join(run.left_out) + "."
    for group in groups:
        yield f"\n## {group.title}\n\n    sidecar bench --only {group.name}"
        if group.text:
            yield f"\n{group.text}"
        if group.figures:
            yield "\n| what | measured | range | aim |\n|---|---|---|---|"
            yield from map(_row, group.figures)
            missed = [f"- {figure.name}: {figure.missed}" for figure in group.figures if figure.missed]
            if missed:
                yield "\n" + "\n".join(["Aims that were missed:\n", *missed])
        for table in group.tables:
            yield from _table(table)
        for picture in group.pictures:
            yield f"\n![{group.title}]({picture})"


def _row(figure: Figure) -> str:
    return f"| {figure.name} | {figure.value} | {figure.spread} | {figure.aim.text if figure.aim else ''} |"


def _table(table: Table) -> Iterator[str]:
    yield f"\n### {table.title}\n"
    yield f"| {' | '.join(table.heads)} |"
    yield "|" + "---|" * len(table.heads)
    for row in table.rows:
        yield f"| {' | '.join(row)} |"


def text(group: Group) -> str:
    """A group for a terminal."""
    lines = [f"{group.title}:"]
    for figure in group.figures:
        remarks = ", ".join(filter(None, (figure.spread, f"aim: {figure.aim.text}" if figure.aim else "")))
        lines.append(f"  {figure.name}: {figure.value}" + (f" ({remarks})" if remarks else ""))
    for table in group.tables:
        lines.append(f"  {table.title}")
        lines += [f"  {row}" for row in columns(table.heads, table.rows).splitlines()]
    return "\n".join(lines)
