"""Command pages that hypothesis makes up: each is answered exactly as the layouts say, and no neighbour notices.

The same checks with many more examples are in tests/campaign; what they check is in tests/support/malformed.py.
"""

import hypothesis
import pytest

from sidecar.layout import PAGE_SIZE, RaiseKind
from sidecar.qemu.session import Session
from tests.support import malformed


@hypothesis.settings(max_examples=150)
@hypothesis.given(page=malformed.pages)
def test_any_command_page(plain: Session, page: malformed.Page) -> None:
    malformed.check_command_page(plain, plain.cpus[2], bytes(page))


@pytest.mark.parametrize("byte", [0x00, 0x01, 0x02, 0x03, 0x04, 0x80, 0xFF])
def test_a_page_full_of_one_byte(plain: Session, byte: int) -> None:
    malformed.check_command_page(plain, plain.cpus[2], bytes([byte]) * PAGE_SIZE)


@hypothesis.settings(max_examples=100)
@hypothesis.given(kind=malformed.raise_kinds, argument=malformed.raise_arguments)
def test_any_raise(machine: Session, kind: int, argument: int) -> None:
    malformed.check_raise(machine, machine.cpus[2], kind, argument)


@pytest.mark.parametrize("kind", [kind for kind in RaiseKind if kind not in malformed.ENDLESS])
@pytest.mark.parametrize("argument", [0, 4, 509, 512, (1 << 64) - 1])
def test_every_kind_with_strange_arguments(machine: Session, kind: RaiseKind, argument: int) -> None:
    malformed.check_raise(machine, machine.cpus[2], kind, argument)
