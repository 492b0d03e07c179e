"""format_text on its own: what Python's formatting says, cut off at the buffer's end, and not a byte more."""

from hypothesis import example, given
from hypothesis import strategies as st

from tests.unit.kernel.helpers import RAM, fresh

TEMPLATE, ARGUMENTS, STRINGS, BUFFER = (RAM.start + offset for offset in (0, 0x1_0000, 0x2_0000, 0x3_0000))
GUARD = b"\xa5" * 64
LITERAL = st.binary(max_size=20).map(lambda text: text.replace(b"%", b"").replace(b"\0", b""))
NUMBER = st.integers(0, (1 << 64) - 1) | st.sampled_from([0, 9, 10, (1 << 63), (1 << 64) - 1])
STRING = st.binary(max_size=300).map(lambda text: text.replace(b"\0", b""))
PIECE = (
    LITERAL
    | st.tuples(st.just("x"), NUMBER)
    | st.tuples(st.just("u"), NUMBER)
    | st.tuples(st.just("s"), STRING)
)  # fmt: skip
Piece = bytes | tuple[str, int] | tuple[str, bytes]


def expected(piece: Piece) -> bytes:
    """One piece of a sentence as Python formats it."""
    match piece:
        case bytes():
            return piece
        case ("x", int() as number):
            return f"{number:#x}".encode()
        case ("u", int() as number):
            return str(number).encode()
        case (_, bytes() as text):
            return text
    raise TypeError(piece)


def formatted(pieces: list[Piece], capacity: int) -> bytes:
    """The same by the routine; the bytes around the buffer stay."""
    kernel = fresh()
    template = b"".join(piece if isinstance(piece, bytes) else f"%{piece[0]}".encode() for piece in pieces)
    kernel.write(TEMPLATE, template + b"\0")
    string, argument = STRINGS, ARGUMENTS
    for _, value in (piece for piece in pieces if not isinstance(piece, bytes)):
        kernel.write(argument, value if isinstance(value, int) else string)
        argument += 8
        if isinstance(value, bytes):
            kernel.write(string, value + b"\0")
            string += len(value) + 1
    kernel.write(BUFFER - len(GUARD), GUARD + bytes(capacity) + GUARD)
    done = kernel.call("format_text", rdi=BUFFER, rcx=capacity, rsi=TEMPLATE, rdx=ARGUMENTS)
    assert kernel.read(BUFFER - len(GUARD), len(GUARD)) == GUARD
    assert kernel.read(BUFFER + capacity, len(GUARD)) == GUARD
    assert done.rax <= capacity
    assert not kernel.changed()
    return kernel.read(BUFFER, done.rax)


@given(st.lists(PIECE, max_size=8), st.integers(0, 600))
@example([("u", (1 << 64) - 1), ("x", (1 << 64) - 1)], 38)
@example([("x", 0), b" ", ("u", 0)], 0)
def test_it_formats_as_python_does_up_to_the_end_of_the_buffer(pieces: list[Piece], capacity: int) -> None:
    assert formatted(pieces, capacity) == b"".join(map(expected, pieces))[:capacity]


def test_it_is_cut_off_at_every_capacity() -> None:
    pieces: list[Piece] = [b"node ", ("u", 12), b": ", ("x", 0xFEED), b" (", ("s", b"why"), b")"]
    whole = b"node 12: 0xfeed (why)"
    assert [formatted(pieces, capacity) for capacity in range(len(whole) + 3)] == [
        whole[:capacity] for capacity in range(len(whole) + 3)
    ]
