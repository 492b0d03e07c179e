"""Offsets within a section: every branch starts short and grows where its label turns out to be too far away.

A branch that has grown stays grown, so the loop ends; after it every remaining short form fits.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from sidecar.builder.asm.fragments import Alignment, Branch, Code, Fragment, Space


@dataclass(frozen=True, slots=True)
class Mark:
    """Where a label stands: before the fragment with this index (or at the section's end)."""

    section: str
    index: int


@dataclass(frozen=True, slots=True)
class Placed:
    """A fragment with its offset; a branch has its final form."""

    fragment: Fragment
    offset: int
    content: Code | Space


def place(section: str, fragments: list[Fragment], marks: Mapping[str, Mark]) -> tuple[list[Placed], list[int]]:
    """Every fragment's final form, and the offset of each fragment with the section's size at the end.

    Raises AssemblyError for a branch that only has a short form and cannot reach its label.
    """
    short = {
        index
        for index, fragment in enumerate(fragments)
        if isinstance(fragment.body, Branch) and fragment.body.short and _is_inside(section, fragment.body, marks)
    }
    while True:
        contents, offsets = _lay_out(fragments, short)
        too_far = {index for index in short if not _reaches(fragments[index].body, offsets, index, marks)}
        if not too_far:
            break
        _require_near_form(fragments, too_far)
        short -= too_far
    _require_near_form(fragments, set(range(len(fragments))) - short)
    placed = [
        Placed(fragment, offset, content)
        for fragment, offset, content in zip(fragments, offsets, contents, strict=False)
    ]
    return placed, offsets


def _is_inside(section: str, branch: Branch, marks: Mapping[str, Mark]) -> bool:
    mark = marks.get(branch.target.symbol)
    return mark is not None and mark.section == section


def _lay_out(fragments: list[Fragment], short: set[int]) -> tuple[list[Code | Space], list[int]]:
    contents: list[Code | Space] = []
    offsets = [0]
    for index, fragment in enumerate(fragments):
        match fragment.body:
            case Branch() as branch:
                content: Code | Space = branch.form(short=index in short)
            case Alignment() as alignment:
                content = Code(alignment.padding(offsets[-1]), (), fragment.line.statement)
            case Code() | Space() as finished:
                content = finished
        contents.append(content)
        offsets.append(offsets[-1] + content.size)
    return contents, offsets


def _reaches(body: object, offsets: list[int], index: int, marks: Mapping[str, Mark]) -> bool:
    assert isinstance(body, Branch)
    target = offsets[marks[body.target.symbol].index] + body.target.addend
    return -128 <= target - offsets[index + 1] <= 127


def _require_near_form(fragments: list[Fragment], indices: set[int]) -> None:
    for index in sorted(indices):
        fragment = fragments[index]
        if isinstance(fragment.body, Branch) and not fragment.body.near:
            reach = f"{fragment.body.mnemonic} goes at most 128 bytes far, within its section"
            raise fragment.line.error(f"'{fragment.body.target.text}' is out of reach: {reach}")
