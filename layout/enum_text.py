"""The sentences under the members of an enumeration, for the generators: Python itself throws them away."""

from __future__ import annotations

import ast
import inspect
import textwrap
from enum import EnumType


def member_docs(kind: EnumType) -> dict[str, str]:
    """Member name to the string literal that follows its assignment, for those members that have one.

    >>> from sidecar.layout.diagnostics import BootPhase
    >>> member_docs(BootPhase)["IDLE"]
    'Status set to IDLE.'
    """
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(definition, ast.ClassDef)
    docs: dict[str, str] = {}
    for member, sentence in zip(definition.body, definition.body[1:], strict=False):
        if (
            isinstance(member, ast.Assign)
            and isinstance(member.targets[0], ast.Name)
            and isinstance(sentence, ast.Expr)
            and isinstance(sentence.value, ast.Constant)
            and isinstance(sentence.value.value, str)
        ):
            docs[member.targets[0].id] = sentence.value.value
    return docs


def class_doc(kind: EnumType) -> str:
    """The first paragraph of the enumeration's docstring on one line."""
    return " ".join((inspect.getdoc(kind) or "").split("\n\n")[0].split())
