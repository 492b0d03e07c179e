"""How the folders at the top become one package, and who may import whom."""

import ast
import importlib
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "sidecar"
LINKS = sorted(path.name for path in PACKAGE.iterdir() if path.is_symlink())

# What each part may import of the others: the longest name that fits a module counts. All may import sidecar.errors.
MAY_IMPORT = {
    "layout": ("layout",),
    "kernel": ("layout", "kernel"),
    "shim": ("layout", "kernel.common", "shim"),
    "builder": ("layout", "builder"),
    "builder.asm": ("layout", "builder.asm"),
    "builder.image": ("layout", "kernel", "shim", "builder"),
    "builder.modules": ("kernel", "shim"),
    "protocol": ("layout", "protocol"),
    "client": ("layout", "protocol", "client"),
    "qemu": ("layout", "protocol", "builder", "qemu"),
    "bench": ("layout", "protocol", "builder", "qemu", "bench"),
    "bench.in_guest": ("client", "layout", "protocol"),
}


def modules() -> Iterator[tuple[str, Path]]:
    """(name without "sidecar.", file) of every module behind a link."""
    for link in LINKS:
        for file in sorted((ROOT / link).rglob("*.py")):
            parts = list(file.relative_to(ROOT).with_suffix("").parts)
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), file


def imports(name: str, file: Path) -> Iterator[str]:
    """The full name of everything that the module imports, also inside functions."""
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"), filename=str(file))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level:
            above = f"sidecar.{package}".split(".")
            base = ".".join(above[: len(above) - node.level + 1] + ([node.module] if node.module else []))
            yield from (f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def within(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix + ".")


def allowed(name: str) -> tuple[str, ...]:
    return MAY_IMPORT[max((part for part in MAY_IMPORT if within(name, part)), key=len)]


def test_dependencies_point_one_way() -> None:
    wrong = [
        f"sidecar.{name} imports {imported}"
        for name, file in modules()
        for imported in imports(name, file)
        if within(imported, "sidecar")
        and not any(within(imported, f"sidecar.{part}") for part in (*allowed(name), "errors", "__version__"))
    ]
    assert wrong == []


def test_only_sidecar_names_are_imported() -> None:
    """`import layout` would work from the root of the repository, and make a second copy of every class."""
    wrong = [
        f"sidecar.{name} imports {imported}"
        for name, file in modules()
        for imported in imports(name, file)
        if imported.split(".")[0] in LINKS and not within(imported, "qemu.qmp")
    ]
    assert wrong == []


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("kernel.idle", "from sidecar.layout import ControlPage", ["sidecar.layout.ControlPage"]),
        ("kernel.idle", "from ..shim import entry", ["sidecar.shim.entry"]),
        ("kernel.idle", "from . import common", ["sidecar.kernel.common"]),
        ("kernel.idle", "def f():\n    import sidecar.qemu", ["sidecar.qemu"]),
    ],
)
def test_the_walk_over_imports_sees(tmp_path: Path, name: str, text: str, expected: list[str]) -> None:
    file = tmp_path / "idle.py"
    file.write_text(text)
    assert list(imports(name, file)) == expected


def test_every_python_folder_has_its_link() -> None:
    top = [path for path in ROOT.iterdir() if path.is_dir() and path.name.isidentifier()]
    folders = {path.name for path in top if any(path.glob("*.py")) or any(path.glob("*/*.py"))}
    assert folders - {"src", "tests", "tools", "build", "docs", "bench", "driver"} <= set(LINKS)


@pytest.mark.parametrize("link", LINKS)
def test_links_are_relative_and_lead_to_the_top(link: str) -> None:
    assert (PACKAGE / link).readlink() == Path("..", "..", link)
    assert (ROOT / link).is_dir()
    assert importlib.import_module(f"sidecar.{link}").__name__ == f"sidecar.{link}"


def test_pyright_names_every_link_and_file() -> None:
    """Pyright skips a link inside an included folder without a word."""
    with open(ROOT / "pyproject.toml", "rb") as file:
        include = tomllib.load(file)["tool"]["pyright"]["include"]
    own = [path.name for path in PACKAGE.iterdir() if path.suffix == ".py" or path.is_dir() or path.is_symlink()]
    assert sorted(include) == sorted([*(f"src/sidecar/{name}" for name in own if name != "__pycache__"), "tests"])


def test_the_qemu_folder_leaves_room_for_qemu_qmp(monkeypatch: pytest.MonkeyPatch) -> None:
    """With an __init__.py it would hide the package qemu.qmp wherever the root is on sys.path."""
    assert not (ROOT / "qemu" / "__init__.py").exists()
    for name in [name for name in sys.modules if within(name, "qemu")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(str(ROOT))
    assert hasattr(importlib.import_module("qemu.qmp"), "QMPClient")
