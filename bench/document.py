"""docs/performance.md, written from the figures of one run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sidecar.bench.figures import Group

HEAD = """# Performance

Every figure here was printed by the command above its table, in one run on the host named below. Times under TCG are
host times: two cores carry all virtual CPUs, so compare figures of one run with each other and with nothing else.
"""


def document(groups: Sequence[Group], where: str) -> str:
    """The whole document. `where` describes host and QEMU."""
    return "\n".join(line for line in _lines(groups, where)) + "\n"


def _lines(groups: Sequence[Group], where: str) -> Iterator[str]:
    yield HEAD
    yield f"Host: {where}. All of it: `sidecar bench --write docs/performance.md --plot docs`."
    for group in groups:
        yield f"\n## {group.title}\n\n    sidecar bench --only {group.name}\n"
        yield "| what | measured | range | aim |"
        yield "|---|---|---|---|"
        for figure in group.figures:
            yield f"| {figure.name} | {figure.value} | {figure.spread} | {figure.aim} |"
        if group.picture:
            yield f"\n![{group.title}]({group.picture})"


def text(groups: Sequence[Group], where: str) -> str:
    """For a terminal."""
    lines = [where]
    for group in groups:
        lines.append(f"{group.title}:")
        for figure in group.figures:
            remarks = ", ".join(filter(None, (figure.spread, figure.aim and f"aim: {figure.aim}")))
            lines.append(f"  {figure.name}: {figure.value}" + (f" ({remarks})" if remarks else ""))
    return "\n".join(lines)
