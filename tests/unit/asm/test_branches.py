"""Branch sizes, and the distances they hold."""

import pytest

from sidecar.builder.asm import Routine, assemble
from tests.gnu_as import judge
from tests.unit.asm.helpers import assemble_text, link_text


def code(text: str) -> str:
    return link_text(text).sections[".text"].hex(" ")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("jmp main", "eb fe"),
        ("jmp .end\n.end:", "eb 00"),
        ("jne .end\nhlt\n.end: ret", "75 01 f4 c3"),
        ("call main", "e8 fb ff ff ff"),
        ("jmp main + 1", "eb ff"),
        ("loop main", "e2 fe"),
        ("jrcxz main", "e3 fe"),
        ("jecxz main", "67 e3 fd"),
        (".code32\njecxz main", "e3 fe"),
        (".code16\njcxz main", "e3 fe"),
        (".code16\ncall main", "e8 fd ff"),
        ("jmp .far\n.zero 0\n.section .other\n.far: ret", "e9 fb 7f 00 00"),
    ],
)
def test_forms(text: str, expected: str) -> None:
    assert code(text) == expected


@pytest.mark.parametrize(("gap", "size"), [(127, 2), (128, 5)])
def test_forward_reach(gap: int, size: int) -> None:
    assembled = assemble_text(f"jmp .far\n.zero {gap}\n.far: ret")
    assert assembled.lines[1].size == size


@pytest.mark.parametrize(("gap", "size"), [(126, 2), (127, 6)])
def test_backward_reach(gap: int, size: int) -> None:
    assembled = assemble_text(f".zero {gap}\njne main")
    assert assembled.lines[-1].size == size


def test_a_grown_branch_pushes_another_out_of_reach() -> None:
    text = "jmp .one\njmp .two\n.zero 124\n.one: .zero {gap}\n.two: ret"
    alone = assemble_text(text.format(gap=3))
    both = assemble_text(text.format(gap=4))
    assert [line.size for line in alone.lines[1:3]] == [2, 2]
    assert [line.size for line in both.lines[1:3]] == [5, 5]
    judge(link_text(text.format(gap=4)))


def test_alignment_moves_with_the_branches() -> None:
    text = "jmp .one\n.zero 130\n.align 16\n.one: jne main\n.align 32\nret"
    linked = link_text(text)
    aligned = [line.vaddr for line in linked.lines if line.source == "ret"]
    assert aligned[0] % 32 == 0
    judge(linked)


def test_many_branches_like_gnu_as() -> None:
    lines = [f".l{number}: jne .l{number * 7 % 90}\njmp .l{number * 13 % 90}\ncall .l0" for number in range(90)]
    judge(link_text("\n".join(lines)))
    judge(link_text(".code32\n" + "\n".join(lines)))
    judge(link_text(".code16\n" + "\n".join(lines)))


def test_branches_between_routines() -> None:
    first = Routine("first", "first: call second\njmp second\n.end: jmp .end")
    second = Routine("second", "second: call first\njmp .end\n.end: ret")
    linked = assemble([first, second], names={}).link({".text": 0x1000}, allow_absolute=False)
    assert linked.sections[".text"].hex(" ") == "e8 04 00 00 00 eb 02 eb fe e8 f2 ff ff ff eb 00 c3"
    judge(linked)
