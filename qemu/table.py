"""The tables of the boot reports: columns as wide as they need, numbers to the right, None as `-`."""

from collections.abc import Collection, Iterable, Iterator, Sequence


def table(heads: Sequence[str], rows: Iterable[Sequence[object]], *, words: Collection[str] = ()) -> Iterator[str]:
    """The lines of a table. The columns called `words` stand to the left."""
    cells = [list(heads), *(["-" if value is None else str(value) for value in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(heads))]
    for row in cells:
        shown = (
            cell.ljust(width) if head in words else cell.rjust(width)
            for head, cell, width in zip(heads, row, widths, strict=True)
        )
        yield "  ".join(shown).rstrip()
