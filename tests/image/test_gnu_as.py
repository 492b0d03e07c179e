"""GNU as gives the same bytes for the canonical text of every routine, but for the committed equivalent encodings."""

import pytest

from sidecar.builder.image import routines
from tests.gnu_as import judge
from tests.image.helpers import BOTH, MODULES, built


@BOTH
@pytest.mark.needs("as")
def test_gnu_as_gives_the_same_bytes(name: str) -> None:
    judge(built(name).linked)


@BOTH
def test_every_routine_is_in_the_image(name: str) -> None:
    """So that the judgement above is of all of them."""
    judged = {line.routine for line in built(name).linked.lines if line.is_instruction}
    assert judged == {routine.__name__ for routine in routines(MODULES[name])}
