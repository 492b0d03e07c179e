"""A description of an ELF file as text for a terminal.

The beginning of what comes out:

    sidecar.elf: ET_DYN, EM_X86_64, 17528 bytes
    entry     0x1000
    build id  60c96e6697c2129ffd2ca9322ad9c48826d4d112

    Segments
    type          flags  offset   vaddr   paddr  in file  in memory   align
    PT_PHDR       R        0x40    0x40    0x40    0x1f8      0x1f8     0x8
"""

from collections.abc import Sequence

from sidecar.builder.elf.description import Description

Cell = str | int


def render(description: Description) -> str:
    """Lines of aligned columns, ending in a newline; tables without rows are left out."""
    header = description["header"]
    title = f"{description['file']}: {header['type']}, {header['machine']}, {description['file_bytes']} bytes"
    facts = [title, f"entry     {header['entry']:#x}"]
    if description["pvh_entry"] is not None:
        facts.append(f"PVH entry {description['pvh_entry']:#x}")
    if description["build_id"] is not None:
        facts.append(f"build id  {description['build_id']}")
    blocks = [
        "\n".join(facts),
        *(_table(title, columns, rows) for title, columns, rows in _tables(description) if rows),
    ]
    return "\n\n".join(blocks) + "\n"


def _tables(description: Description) -> list[tuple[str, Sequence[str], list[list[Cell]]]]:
    return [
        (
            "Segments",
            ("type", "flags", "offset", "vaddr", "paddr", "in file", "in memory", "align"),
            [
                [
                    one["type"],
                    one["flags"],
                    one["offset"],
                    one["vaddr"],
                    one["paddr"],
                    one["file_bytes"],
                    one["memory_bytes"],
                    one["align"],
                ]
                for one in description["segments"]
            ],
        ),
        (
            "Sections",
            ("name", "type", "flags", "vaddr", "offset", "size", "align"),
            [
                [one["name"], one["type"], one["flags"], one["vaddr"], one["offset"], one["size"], one["align"]]
                for one in description["sections"]
            ],
        ),
        (
            "Symbols",
            ("value", "size", "type", "binding", "section", "name"),
            [
                [one["value"], one["size"], one["type"], one["binding"], one["section"], one["name"]]
                for one in description["symbols"]
            ],
        ),
        (
            "Relocations",
            ("offset", "addend", "type", "section"),
            [[one["offset"], one["addend"], one["type"], one["section"]] for one in description["relocations"]],
        ),
        ("Dynamic", ("tag", "value"), [[one["tag"], one["value"]] for one in description["dynamic"]]),
        (
            "Notes",
            ("owner", "type", "descriptor"),
            [[one["owner"], one["type"], one["descriptor"]] for one in description["notes"]],
        ),
    ]


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> str:
    """Numbers in hex to the right, words to the left."""
    texts = [list(columns), *([_text(cell) for cell in row] for row in rows)]
    widths = [max(len(row[index]) for row in texts) for index in range(len(columns))]
    numeric = [isinstance(cell, int) for cell in rows[0]]
    lines = [
        "  ".join(
            text.rjust(width) if right else text.ljust(width)
            for text, width, right in zip(row, widths, numeric, strict=True)
        ).rstrip()
        for row in texts
    ]
    return "\n".join([title, *lines])


def _text(cell: Cell) -> str:
    return f"{cell:#x}" if isinstance(cell, int) else cell
