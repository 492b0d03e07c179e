"""A routine's text, cut into lines of three columns: label, statement, comment.

    def wait_here() -> str:
        return '''
        wait_here:
        .again: pause                   # leave the core to its sibling
                jmp     .again
        '''

Line 1 is the first line that is not empty, because the text of a routine opens with the newline after the quotes.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from sidecar.builder.asm.errors import AssemblyError

_LABEL = re.compile(r"(\.?[A-Za-z_]\w*):\s*(.*)", re.ASCII | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Routine:
    """A name and a text, for code that does not come from a function: generated routines, test guests."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class SourceLine:
    """One line that says something: a label, a statement or both."""

    routine: str
    number: int
    source: str  # as written, without indentation and comment
    label: str  # "" if there is none; ".name" is local to the routine
    statement: str  # "" if the label stands alone
    comment: str

    def error(self, reason: str) -> AssemblyError:
        """The reason, said of this line."""
        return AssemblyError(self.routine, self.number, self.source, reason)


def read_routine(routine: Callable[[], str] | Routine) -> Routine:
    """The routine that a function stands for: its own name, and the text it returns."""
    if isinstance(routine, Routine):
        return routine
    return Routine(routine.__name__, routine())


def split_lines(routine: Routine) -> list[SourceLine]:
    """Every line of the routine that is more than blank or comment, numbered from the first non-empty one."""
    lines: list[SourceLine] = []
    first = 0
    for index, text in enumerate(routine.text.split("\n"), start=1):
        if not first and text.strip():
            first = index
        line = _split_line(routine.name, index - first + 1, text)
        if line.label or line.statement:
            lines.append(line)
    return lines


def _split_line(routine: str, number: int, text: str) -> SourceLine:
    code, comment, closed = _cut_comment(text)
    code = code.strip()
    if not closed:
        raise AssemblyError(routine, number, code, "a quote is opened and not closed")
    match = _LABEL.fullmatch(code)
    label, statement = match.groups() if match else ("", code)
    return SourceLine(routine, number, code, label, statement, comment.strip())


def _cut_comment(text: str) -> tuple[str, str, bool]:
    """Code, comment, and whether every quote in the code is closed; a # inside quotes opens no comment."""
    quote = ""
    position = 0
    while position < len(text):
        character = text[position]
        if quote and character == "\\":
            position += 1
        elif quote:
            quote = "" if character == quote else quote
        elif character in "\"'":
            quote = character
        elif character == "#":
            return text[:position], text[position + 1 :], True
        position += 1
    return text, "", not quote


def cut_word(text: str) -> tuple[str, str]:
    """The first word of a text and what follows it."""
    word, *rest = text.split(None, 1)
    return word, rest[0] if rest else ""


def split_operands(text: str) -> list[str]:
    """The parts between commas that stand outside quotes, brackets and parentheses; an empty text has none."""
    parts: list[str] = []
    start = depth = position = 0
    quote = ""
    while position < len(text):
        character = text[position]
        if quote and character == "\\":
            position += 1
        elif quote:
            quote = "" if character == quote else quote
        elif character in "\"'":
            quote = character
        elif character in "([":
            depth += 1
        elif character in ")]":
            depth -= 1
        elif character == "," and depth == 0:
            parts.append(text[start:position].strip())
            start = position + 1
        position += 1
    return [*parts, text[start:].strip()] if text.strip() else []
