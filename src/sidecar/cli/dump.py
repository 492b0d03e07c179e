"""`sidecar dump`: layouts, images, listings, and the pages of a live machine."""

import argparse
import json
from difflib import get_close_matches
from pathlib import Path

from sidecar.builder import elf
from sidecar.builder.asm import listing
from sidecar.cli import dump_live, dump_recorder, dump_sdcr, dump_vmcb
from sidecar.cli.images import image
from sidecar.cli.parser import Commands
from sidecar.errors import UserError
from sidecar.layout import Layout, by_name
from sidecar.layout.c_header import c_struct, header
from sidecar.layout.registry import ALL
from sidecar.protocol.render import columns

DEFAULT_IMAGE = Path("build/sidecar.elf")


def add(commands: Commands) -> None:
    parser = commands.add_parser("dump", help="look at layouts, images, listings and live machines")
    parts = parser.add_subparsers(title="what to dump", metavar="WHAT", required=True)
    _add_layout(parts)
    _add_image(parts)
    _add_listing(parts)
    dump_live.add(parts)
    dump_recorder.add(parts)
    dump_sdcr.add(parts)
    dump_vmcb.add(parts)


def _add_layout(parts: Commands) -> None:
    parser = parts.add_parser("layout", help="the shared pages, field by field")
    parser.add_argument("name", metavar="NAME", nargs="?", help="one layout, such as ControlPage; default: all")
    parser.add_argument("--format", choices=("text", "json", "c"), default="text")
    parser.set_defaults(run=run_layout)


def _add_image(parts: Commands) -> None:
    parser = parts.add_parser("image", help="an ELF file: headers, segments, relocations, symbols, notes")
    parser.add_argument("file", metavar="FILE", nargs="?", type=Path, default=DEFAULT_IMAGE,
                        help=f"default: {DEFAULT_IMAGE}")
    parser.add_argument("--format", choices=("text", "json"), default="text")
    parser.set_defaults(run=run_image)


def _add_listing(parts: Commands) -> None:
    parser = parts.add_parser("listing", help="address, bytes and source of every line of machine code")
    parser.add_argument("routine", metavar="ROUTINE", nargs="?", help="one routine; default: all")
    parser.add_argument("--image", choices=("kernel", "shim"), default="kernel", help="default: kernel")
    parser.add_argument("--format", choices=("text", "json"), default="text")
    parser.set_defaults(run=run_listing)


def run_layout(options: argparse.Namespace) -> int:
    try:
        layouts = [by_name(options.name)] if options.name else list(ALL)
    except KeyError as error:
        raise UserError(error.args[0]) from error
    if options.format == "json":
        described = [layout.describe() for layout in layouts]
        print(json.dumps(described[0] if options.name else described, indent=2))
    elif options.format == "c":
        print("\n\n".join(map(c_struct, layouts)) if options.name else header().rstrip("\n"))
    else:
        print("\n\n".join(map(layout_text, layouts)))
    return 0


def layout_text(layout: Layout) -> str:
    """A layout as a table with nested fields under dotted names."""
    rows = ((f"{field.offset:#x}", field.size, field.type, field.name, field.doc) for field in layout.leaves())
    table = columns(("offset", "bytes", "type", "field", "what"), rows).rstrip("\n")
    return f"{layout.NAME}, {layout.SIZE:#x} bytes: {layout.DOC}\n{table}"


def run_image(options: argparse.Namespace) -> int:
    try:
        description = elf.describe(options.file)
    except OSError as error:
        hint = "; `sidecar build` makes it" if options.file == DEFAULT_IMAGE else ""
        raise UserError(f"cannot read {options.file}: {error.strerror}{hint}") from error
    except elf.ElfError as error:
        raise UserError(str(error)) from error
    print(json.dumps(description, indent=2) if options.format == "json" else elf.render(description).rstrip("\n"))
    return 0


def run_listing(options: argparse.Namespace) -> int:
    linked = image(options.image).linked
    names = list(dict.fromkeys(line.routine for line in linked.lines))
    if options.routine not in (None, *names):
        near = ", ".join(get_close_matches(options.routine, names)) or "all names: sidecar dump listing"
        raise UserError(f"the {options.image} has no routine {options.routine!r}; near it: {near}")
    if options.format == "text":
        print(listing(linked, options.routine).rstrip("\n"))
        return 0
    print(json.dumps([
        {
            "routine": line.routine, "number": line.number, "section": line.section, "address": line.vaddr,
            "bytes": line.data.hex(), "source": line.source, "canonical": line.canonical, "comment": line.comment,
        }
        for line in linked.lines if options.routine in (None, line.routine)
    ], indent=2))
    return 0
