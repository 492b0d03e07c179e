"""The examples in the docstrings: what stands behind `>>>` gives what stands below it."""

import doctest
import importlib
from pathlib import Path

import pytest

from tests.unit.test_packages import modules

WITH_EXAMPLES = [
    f"sidecar.{name}" for name, file in modules() if ">>> " in file.read_text(encoding="utf-8")
]
HELPERS = [
    f"tests.support.{file.stem}" for file in sorted((Path(__file__).parents[1] / "support").glob("*.py"))
    if ">>> " in file.read_text(encoding="utf-8")
]
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@pytest.mark.parametrize("name", WITH_EXAMPLES + HELPERS)
def test_examples(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name), optionflags=FLAGS)
    assert result.attempted > 0
    assert result.failed == 0
