"""The strict assembler: routines of text in, machine code with a listing out.

`assemble` cuts each routine's text into lines (`source`), resolves every name and number itself (`expressions`,
`operands`), checks that each number has room (`ranges`) and each label a form that exists (`fields`), and hands the
encoder one instruction at a time with nothing but numbers in it (`statements`). The encoder (`encoder`, `tables`)
believes keystone only where capstone reads back the same instruction. Branches are encoded here (`branches`) and get
their size when the whole section is known (`placement`). The result is an `Object`; `Object.link` gives it addresses.
It knows no kernel: every constant comes in through `names`.

    linked = assemble([raise_attention], names={"ControlPage": ControlPage}).link(
        {".text": 0x1000}, absolute={"control_page": 0x206000}, allow_absolute=False)
    print(listing(linked))

Every error is an `AssemblyError`: `raise_attention, line 4: 'mvo eax, 1': invalid mnemonic`.
"""

from sidecar.builder.asm.assembler import assemble
from sidecar.builder.asm.errors import AssemblyError
from sidecar.builder.asm.fragments import FieldKind
from sidecar.builder.asm.link import Linked, LinkedLine, Object
from sidecar.builder.asm.listing import listing, where_is
from sidecar.builder.asm.records import Fixup, Line, Section, Symbol
from sidecar.builder.asm.source import Routine

__all__ = [
    "AssemblyError",
    "FieldKind",
    "Fixup",
    "Line",
    "Linked",
    "LinkedLine",
    "Object",
    "Routine",
    "Section",
    "Symbol",
    "assemble",
    "listing",
    "where_is",
]
