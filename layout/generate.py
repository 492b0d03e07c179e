"""Writes the files that are generated from the layouts and committed: `python -m sidecar.layout.generate`.

A file is written only if its text changes, so that nothing is rebuilt for nothing.
"""

from __future__ import annotations

from pathlib import Path

from sidecar.layout import c_header, document

REPOSITORY = Path(__file__).resolve().parent.parent
REMEDY = "run `.venv/bin/python -m sidecar.layout.generate`"


def files() -> dict[Path, str]:
    """Path in the repository to the text that belongs there."""
    return {
        REPOSITORY / "driver" / "sidecar_abi.h": c_header.header(),
        REPOSITORY / "docs" / "abi.md": document.document(),
    }


def stale() -> list[Path]:
    """The generated files that are missing or differ from what the layouts say now."""
    return [path for path, text in files().items() if not path.exists() or path.read_text() != text]


def generate() -> list[Path]:
    """Bring every generated file up to date; returns those that were written."""
    written = stale()
    for path in written:
        path.parent.mkdir(exist_ok=True)
        path.write_text(files()[path])
    return written


if __name__ == "__main__":
    for path in generate():
        print(f"wrote {path.relative_to(REPOSITORY)}")
