"""The page docs/abi.md: every layout, enumeration, transition, register and address as tables.

Sample:

    ### `CpuMapEntry`, 0x10 bytes

    One CPU of the machine; the map's index is the Linux number.

    | offset | size | type | field | what |
    |---:|---:|---|---|---|
    | 0x0 | 4 | u32 | `apic_id` | x2APIC id, as CPUID leaf 0xB reports it |
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import IntEnum, IntFlag

from sidecar.layout import abi, address_map, control
from sidecar.layout.command import VP_REGISTERS
from sidecar.layout.enum_text import class_doc, member_docs
from sidecar.layout.register_table import REGISTERS, RegisterRule
from sidecar.layout.registry import CONSTANTS, ENUMS, EXTERNAL, PRIVATE, SHARED, abi_hash
from sidecar.layout.schema import PAGE_SIZE, Layout

_INTRODUCTION = """\
# The ABI

<!-- Generated from layout/ by `python -m sidecar.layout.generate`; do not edit. -->

Every byte that two parties of the sidecar share, and every number that they agree on. This page is for whoever writes
or reads one of the parties: the boot shim, the sidecar kernel, the Linux driver, a client, a debugging tool. It says
what stands where and who may change it.

The pages are byte-compatible with those of OpenHCL's sidecar; what this project adds stands in bytes that are
reserved or unused there, in commands from 0x100, statuses from 5 and ioctl numbers from 0xF4. All numbers are
little-endian, fields are naturally aligned, and reserved bytes are zero.

Parties that attach to each other compare the version and the hash; the hash changes with every byte, name and number
of the shared layouts, enumerations, transitions and registers, and not with the sentences.
"""

_NODE_MEMORY = """\
A node's memory is one physical range. It starts with the control page; the shared pages of all its CPUs follow, which
user space can map in one piece; then the private pages, CPU by CPU; then the page tables of the window that arriving
CPUs use. The base CPU has its pages too, so that the index alone gives the address.
"""

_VIRTUAL_MAP = """\
The same on every sidecar CPU; the per-CPU 2 MiB show its own pages. Whatever is not named is not mapped: the pages
next to the stacks stay empty as guards. No page is both writable and executable. An arriving CPU runs for a moment on
the shared transition tables, which map the image, the trampoline page at its physical address, and the windows.
"""


def document() -> str:
    """The whole page."""
    lines = [
        _INTRODUCTION,
        *_contents(), "",
        *_limits(), "",
        "## Shared layouts", "", *_layouts(SHARED),
        "## Enumerations", "", *_enums(),
        *_transitions(), "",
        *_registers(), "",
        *_virtual_map(), "",
        *_node_memory(), "",
        "## The sidecar's own layouts", "",
        "Only the sidecar reads and writes these. Dumps show them; nobody may rely on them.", "", *_layouts(PRIVATE),
        "## Layouts of others", "",
        "What the shim reads from firmware and loader, and what the processor defines.", "", *_layouts(EXTERNAL),
    ]
    return "\n".join(lines).rstrip("\n") + "\n"


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    """A Markdown table; a head that ends in `:` is a column aligned to the right."""
    names = list(head)
    yield f"| {' | '.join(name.removesuffix(':') for name in names)} |"
    yield f"|{'|'.join('---:' if name.endswith(':') else '---' for name in names)}|"
    for row in rows:
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |"


def _contents() -> Iterator[str]:
    yield from table(("layout", "bytes:", "who and what"), (
        (f"[`{layout.NAME}`](#{_anchor(layout)})", f"{layout.SIZE:#x}", layout.DOC) for layout in SHARED
    ))


def _heading(layout: Layout) -> str:
    return f"`{layout.NAME}`, {layout.SIZE:#x} bytes"


def _anchor(layout: Layout) -> str:
    return _heading(layout).lower().replace("`", "").replace(",", "").replace(" ", "-")


def _limits() -> Iterator[str]:
    yield from ("## Version and limits", "", f"ABI version {abi.ABI_VERSION}, hash `{abi_hash():#018x}`.", "")
    yield from table(("name", "value:"), ((f"`{name}`", _shown(value)) for name, value in CONSTANTS.items()))


def _shown(value: int) -> str:
    return str(value) if value < 10 else f"{value:#x}" if value > 0xFFFF else f"{value} ({value:#x})"


def _layouts(layouts: Iterable[Layout]) -> Iterator[str]:
    for layout in layouts:
        yield from (f"### {_heading(layout)}", "", layout.DOC, "")
        yield from table(("offset:", "size:", "type", "field", "what"), (
            (f"{field.offset:#x}", str(field.size), field.type, f"`{field.name}`", field.doc)
            for field in layout.fields
        ))
        yield ""


def _enums() -> Iterator[str]:
    for kind in ENUMS:
        yield from (f"### `{kind.__name__}`", "", class_doc(kind), "", *_members(kind), "")


def _members(kind: type[IntEnum] | type[IntFlag]) -> Iterator[str]:
    docs = member_docs(kind)
    if not docs:
        return table(("value:", "name"), ((f"{member:#x}", f"`{member.name}`") for member in kind.__members__.values()))
    return table(("value:", "name", "what"), (
        (f"{member:#x}", f"`{member.name}`", docs.get(str(member.name), "")) for member in kind.__members__.values()
    ))


def _transitions() -> Iterator[str]:
    yield from ("## CPU status transitions", "", "Any other change of a status byte is a defect.", "")
    yield from table(("from", "to", "by", "how", "when"), (
        (f"`{row.old.name}`", f"`{row.new.name}`", _PARTIES[row.party], row.primitive, row.when)
        for row in control.TRANSITIONS
    ))


_PARTIES = {
    control.Party.SIDECAR_BSP: "sidecar, on the boot CPU",
    control.Party.SIDECAR_CPU: "sidecar, on the CPU itself",
    control.Party.DRIVER: "driver",
}


def _registers() -> Iterator[str]:
    yield from (
        "## Registers of a virtual processor", "",
        "What GET_VP_REGISTERS and SET_VP_REGISTERS know without a guest, under the names of the Hyper-V TLFS. They",
        "are state of the virtual processor; SET changes the writable bits alone, and never the physical CPU. Bits",
        "that are 1 after reset are hard-wired.", "",
    )
    yield from table(("number:", "name", "after reset:", "writable bits:"), (
        (f"{register.number:#x}", f"`{register.name}`", f"{register.reset:#x}", f"{register.writable:#x}")
        for register in VP_REGISTERS
    ))
    yield from (
        "", "With a virtual processor there are these too. Registers of 128 bits show both halves; bits that are",
        "always set read as 1 whatever SET gave.", "",
    )
    yield from table(("number:", "name", "writable bits:", "always set:", "rule"), (
        (f"{row.number:#x}", f"`{row.name}`", f"{row.writable:#x}", f"{row.fixed:#x}", f"`{row.rule.name}`")
        for row in REGISTERS if row.needs_vp
    ))
    yield from ("", "The rules:", "")
    rules = member_docs(RegisterRule)
    yield from table(("rule", "what it means"), ((f"`{rule.name}`", rules.get(rule.name, "")) for rule in RegisterRule))


def _virtual_map() -> Iterator[str]:
    yield from ("## Virtual addresses", "", _VIRTUAL_MAP)
    cpu_map = address_map.IMAGE_VA + address_map.CPU_MAP_SLOT * PAGE_SIZE
    rows = [
        (f"{address_map.IMAGE_VA:#x}", f"up to {address_map.CPU_MAP_SLOT}", "by segment", "the image"),
        (f"{cpu_map:#x}", f"up to {address_map.CPU_MAP_PAGES}", "read", "the CPU map"),
    ]
    for mapping in address_map.PER_CPU_MAP:
        rows.append((f"{mapping.va:#x}", "1", "read, write" if mapping.writable else "read", mapping.doc))
    rows.append((f"{address_map.PER_CPU_VA + address_map.VP_TABLE_SLOT * PAGE_SIZE:#x}", "1", "read, write",
                 "VpPage.TABLE, while there is a virtual processor"))
    for _, slot, page, what in address_map.VP_MAP:
        pages = address_map.vp_page_count(page)
        rows.append((f"{address_map.VP_VA + slot * PAGE_SIZE:#x}", f"{pages}", "read, write", what))
    windows = address_map.VP_VA + address_map.GUEST_WINDOW_SLOT * PAGE_SIZE
    rows.append((f"{windows:#x}", f"{address_map.GUEST_WINDOWS}", "as needed",
                 "windows onto guest memory and nested page tables, each mapped for a moment"))
    rows.append((f"{address_map.VP_VA + address_map.CODE_WINDOW_SLOT * PAGE_SIZE:#x}", "1", "read",
                 "the page of guest code that was read last"))
    rows.append((f"{address_map.WINDOWS_VA:#x}", "each node's memory", "read, write",
                 "windows onto the nodes, 2 MiB aligned, on the transition tables only"))
    yield from table(("address", "pages:", "rights", "what"), rows)


def _node_memory() -> Iterator[str]:
    yield from ("## Node memory", "", _NODE_MEMORY)
    shared, private = address_map.SHARED_PAGES, address_map.PRIVATE_PAGES
    yield from table(("page", "pages:", "what"), (
        ("0", "1", "`ControlPage`"),
        ("1", f"{shared} n", "shared pages: " + ", ".join(_pages(address_map.SharedPage))),
        (f"1 + {shared} n", f"{private} n", "private pages: " + ", ".join(_pages(address_map.PrivatePage))),
        (f"1 + {shared + private} n", "t", "page tables of the window: t = (1 + "
         f"{shared + private} n) / {address_map.TABLE_ENTRIES}, rounded up"),
    ))
    yield from ("", "`required_memory()` of a node of n CPUs:", "")
    yield from table(("CPUs:", "pages:", "KiB:"), (
        (str(count), str(address_map.required_memory(count) // PAGE_SIZE),
         str(address_map.required_memory(count) // 1024))
        for count in (2, 4, 8, 16, 32)
    ))


def _pages(kind: type[IntEnum]) -> Iterator[str]:
    return (f"{int(member)} {member.name}" for member in kind)
