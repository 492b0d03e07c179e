from pathlib import Path

import pytest

from tests.unit.linux.fake_apt import FakeArchive


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeArchive:
    root = tmp_path / "fake"
    root.mkdir()
    return FakeArchive(root, monkeypatch)
