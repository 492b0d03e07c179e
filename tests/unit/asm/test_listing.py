"""The listing, line by line, and finding a line by its address."""

from sidecar.builder.asm import assemble, listing, where_is


class ControlPage:
    needs_attention = 8


def raise_attention() -> str:
    """A routine as the kernel writes them."""
    return """
    raise_attention:
            mov     dword ptr [rip + control_page + ControlPage.needs_attention], 1     # somebody wants us
    .again: pause
            jmp     .again
            .section .rodata
    greeting:
            .asciz  "hello, world"
    """


def wait_here() -> str:
    """Another."""
    return """
    wait_here:
            hlt
    """


LINKED = assemble([raise_attention, wait_here], names={"ControlPage": ControlPage}).link(
    {".text": 0x1000, ".rodata": 0x2000}, absolute={"control_page": 0x206000}, allow_absolute=False
)


def test_listing() -> None:
    assert listing(LINKED).splitlines() == [
        "raise_attention, .text:",
        "0x00001000                                raise_attention:",
        "0x00001000  c7 05 fe 4f 20 00 01 00 00 00 "
        "mov     dword ptr [rip + control_page + ControlPage.needs_attention], 1  # somebody wants us",
        "0x0000100a  f3 90                         .again: pause",
        "0x0000100c  eb fc                         jmp     .again",
        "",
        "wait_here, .text:",
        "0x0000100e                                wait_here:",
        "0x0000100e  f4                            hlt",
        "",
        "raise_attention, .rodata:",
        "0x00002000                                greeting:",
        '0x00002000  68 65 6c 6c 6f 2c 20 77 6f 72 .asciz  "hello, world"',
        "0x0000200a  6c 64 00",
    ]


def test_listing_of_one_routine() -> None:
    assert listing(LINKED, "wait_here").splitlines() == [
        "wait_here, .text:",
        "0x0000100e                                wait_here:",
        "0x0000100e  f4                            hlt",
    ]
    assert listing(LINKED, "nobody") == ""


def test_where_is() -> None:
    assert where_is(LINKED, 0x100C) == "raise_attention+0xc, line 4: 'jmp     .again'"
    assert where_is(LINKED, 0x100D) == "raise_attention+0xd, line 4: 'jmp     .again'"
    assert where_is(LINKED, 0x100E) == "wait_here+0x0, line 2: 'hlt'"
    assert where_is(LINKED, 0x2005) == "greeting+0x5, line 7: '.asciz  \"hello, world\"'"
    assert where_is(LINKED, 0x5000) == "0x5000, in no routine"


def test_lines_hold_what_the_listing_shows() -> None:
    line = next(found for found in LINKED.lines if found.vaddr == 0x100C)
    assert (line.routine, line.number, line.section, line.size) == ("raise_attention", 4, ".text", 2)
    assert (line.data.hex(), line.bits, line.canonical) == ("ebfc", 64, "jmp 0x100a")
