"""The C header driver/sidecar_abi.h: every shared layout, enumeration, constant and address, for driver and user space.

`header()` is the committed file; `assertions()` is a C file that includes it and lets the compiler compare every
offset and size with the layouts. The types are those of <linux/types.h>, which the kernel and user space both have.

Sample:

    /* A register's name and value. */
    struct sidecar_hv_register_assoc {
            /* 0x0: HvRegisterName */
            __u32 name;
            /* 0x4: zero */
            __u8 reserved_4[12];
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from enum import IntEnum, IntFlag

from sidecar.layout import address_map, control
from sidecar.layout.enum_text import class_doc, member_docs
from sidecar.layout.registry import CONSTANTS, ENUMS, SHARED, abi_hash
from sidecar.layout.schema import PAGE_SIZE, Field, Layout
from sidecar.layout.x86 import MNEMONICS

WIDTH = 100
INT_MAX = 0x7FFFFFFF
INDENT = " " * 8
"""Turned into tabs at the end, as the Linux kernel wants them."""

_HEAD = """\
/* SPDX-License-Identifier: MIT */
/*
 * The bytes that the sidecar kernel, the driver and user space share.
 *
 * Generated from layout/ by `python -m sidecar.layout.generate`; do not edit.
 */
#ifndef SIDECAR_ABI_H
#define SIDECAR_ABI_H

#include <linux/types.h>
"""


def c_name(name: str) -> str:
    """The C tag of a layout or enumeration: `CpuContextX64` is sidecar_cpu_context_x64, `SidecarParams` sidecar_params.

    >>> c_name("GetSetVpRegisterRequest"), c_name("SidecarOutput")
    ('sidecar_get_set_vp_register_request', 'sidecar_output')
    """
    words = re.findall(r"[A-Z][a-z]*[0-9]*", name.removeprefix("Sidecar"))
    return "_".join(["sidecar", *(word.lower() for word in words)])


def header() -> str:
    """The whole header."""
    parts = [
        _HEAD,
        "\n".join(_constants()),
        *("\n".join(_enum(kind)) for kind in (*ENUMS, control.Party)),
        *(c_struct(layout) for layout in SHARED),
        "\n".join(_transitions()),
        "\n".join(_mnemonics()),
        _ALLOWED,
        _ADDRESSES,
        "#endif /* SIDECAR_ABI_H */",
    ]
    return _tabs("\n\n".join(part.strip("\n") for part in parts) + "\n")


def c_struct(layout: Layout) -> str:
    """One layout as a C structure, fields with offset and sentence."""
    lines = [*_comment(layout.DOC), f"struct {c_name(layout.NAME)} {{"]
    for field in layout.fields:
        lines += _comment(f"{field.offset:#x}: {field.doc}", INDENT)
        lines.append(f"{INDENT}{_declaration(field)};")
    return "\n".join([*lines, "};"])


def assertions() -> str:
    """A C file whose compilation compares the size of every structure, offset and size of every field, with layout/."""
    lines = ["#include <stddef.h>", '#include "sidecar_abi.h"', ""]
    for layout in SHARED:
        tag = f"struct {c_name(layout.NAME)}"
        lines.append(_assertion(f"sizeof({tag})", layout.SIZE))
        for field in layout.leaves():
            lines.append(_assertion(f"offsetof({tag}, {field.name})", field.offset))
            lines.append(_assertion(f"sizeof((({tag} *)0)->{field.name})", field.size))
    return "\n".join(lines) + "\n"


def _assertion(expression: str, expected: int) -> str:
    return f'_Static_assert({expression} == {expected:#x}, "{expression} is not {expected:#x}");'


def _comment(text: str, indent: str = "") -> list[str]:
    """A C comment of one line, or of several where the text is long."""
    room = WIDTH - len(indent) - len("/*  */")
    if len(text) <= room:
        return [f"{indent}/* {text} */"]
    return [f"{indent}/*", *(f"{indent} * {line}" for line in textwrap.wrap(text, room)), f"{indent} */"]


def _declaration(field: Field) -> str:
    kind = f"struct {c_name(field.nested.NAME)}" if field.nested else f"__{field.type.partition('[')[0]}"
    return f"{kind} {field.name}[{field.count}]" if "[" in field.type else f"{kind} {field.name}"


def _constants() -> Iterator[str]:
    yield from _comment("Changes with every byte, name or number below; parties that attach compare it.")
    yield f"#define SIDECAR_ABI_HASH {abi_hash():#018x}ULL"
    yield f"#define SIDECAR_PAGE_SIZE {PAGE_SIZE}"
    for name, value in CONSTANTS.items():
        decimal = name.startswith("MAX_") or name.endswith("_PAGES")
        yield f"#define SIDECAR_{name} {value if decimal else _number(value)}"


def _number(value: int) -> str:
    if value > 0xFFFFFFFF:
        return f"{value:#x}ULL"
    return f"{value:#x}U" if value > INT_MAX else f"{value:#x}" if value > 9 else str(value)


def _enum(kind: type[IntEnum] | type[IntFlag]) -> Iterator[str]:
    """An enumeration; as macros where a value exceeds int, which C before C23 does not allow in an enum."""
    docs, prefix = member_docs(kind), c_name(kind.__name__).upper()
    macros = any(member > INT_MAX for member in kind.__members__.values())
    yield from _comment(class_doc(kind))
    if not macros:
        yield f"enum {c_name(kind.__name__)} {{"
    for member in kind.__members__.values():  # a flag of several bits is no member when iterating
        if sentence := docs.get(str(member.name)):
            yield from _comment(sentence, "" if macros else INDENT)
        name, value = f"{prefix}_{member.name}", _number(int(member))
        yield f"#define {name} {value}" if macros else f"{INDENT}{name} = {value},"
    if not macros:
        yield "};"


def _transitions() -> Iterator[str]:
    yield from _comment(
        "Every change that a status byte may make: X(old, new, party, primitive), by names of CpuStatus and Party."
    )
    yield "#define SIDECAR_CPU_TRANSITIONS(X) \\"
    for row in control.TRANSITIONS:
        yield f"{INDENT}/* {row.when} */ \\"
        yield f"{INDENT}X({row.old.name}, {row.new.name}, {row.party.name}, {row.primitive}) \\"
    yield f"{INDENT}/* end */"


def _mnemonics() -> Iterator[str]:
    yield from _comment("The exception vectors by the manual's short names: X(vector, mnemonic).")
    yield "#define SIDECAR_EXCEPTIONS(X) \\"
    for vector, mnemonic in MNEMONICS.items():
        yield f'{INDENT}X({vector}, "{mnemonic}") \\'
    yield f"{INDENT}/* end */"


def _tabs(text: str) -> str:
    return re.sub(rf"^(?:{INDENT})+", lambda spaces: "\t" * (len(spaces[0]) // len(INDENT)), text, flags=re.MULTILINE)


_ALLOWED = """\
/* Is old -> new by party in the table? */
static inline int sidecar_cpu_transition_allowed(__u8 old, __u8 new_status,
                                                 enum sidecar_party party)
{
#define SIDECAR_TRANSITION_MATCHES(o, n, p, primitive) \\
        || (old == SIDECAR_CPU_STATUS_##o && new_status == SIDECAR_CPU_STATUS_##n && \\
            party == SIDECAR_PARTY_##p)
        return 0 SIDECAR_CPU_TRANSITIONS(SIDECAR_TRANSITION_MATCHES);
#undef SIDECAR_TRANSITION_MATCHES
}
"""

_ADDRESSES = f"""\
/* Where every CPU has the image mapped, and how much of it at most. */
#define SIDECAR_IMAGE_VA {address_map.IMAGE_VA:#x}ULL
#define SIDECAR_IMAGE_LIMIT {address_map.LARGE_PAGE:#x}
#define SIDECAR_TABLE_ENTRIES {address_map.TABLE_ENTRIES}
#define SIDECAR_PAGES_PER_CPU (SIDECAR_PRIVATE_PAGES + SIDECAR_SHARED_PAGES)

/* Bytes of node memory: control page, shared pages, private pages, tables of the window onto it. */
static inline __u64 sidecar_required_memory(__u32 cpu_count)
{{
        __u64 pages = 1 + (__u64)SIDECAR_PAGES_PER_CPU * cpu_count;

        pages += (pages + SIDECAR_TABLE_ENTRIES - 1) / SIDECAR_TABLE_ENTRIES;
        return pages * SIDECAR_PAGE_SIZE;
}}

/* Physical address of a shared page of the node's CPU number index. */
static inline __u64 sidecar_shared_pa(__u64 memory_base, __u32 index, enum sidecar_shared_page page)
{{
        return memory_base +
               (1 + (__u64)SIDECAR_SHARED_PAGES * index + page) * SIDECAR_PAGE_SIZE;
}}

/* Physical address of a private page of the node's CPU number index. */
static inline __u64 sidecar_private_pa(__u64 memory_base, __u32 cpu_count, __u32 index,
                                       enum sidecar_private_page page)
{{
        return memory_base + (1 + (__u64)SIDECAR_SHARED_PAGES * cpu_count +
                              (__u64)SIDECAR_PRIVATE_PAGES * index + page) * SIDECAR_PAGE_SIZE;
}}
"""
