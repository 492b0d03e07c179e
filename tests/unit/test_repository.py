"""What stands in the repository's files: no foreign paths or hosts, no silenced checks; and its entry points."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NOT_OURS = re.compile(r"^(\.(?!ci$).*|build|dist|__pycache__|.*\.egg-info|node_modules)$")

# Written in pieces, so that this file does not contain what it forbids.
REGISTRIES = "|".join(
    name + r"\." + top
    for name, top in (
        (r"(deb|ftp|security|snapshot|httpredir)\.debian", "org"),
        ("pypi", "org"),
        ("pythonhosted", "org"),
        ("npmjs", "(org|com)"),
        (r"(proxy|sum)\.golang", "org"),
        (r"(static|index)\.crates", "io"),
    )
)
MACHINE_PATHS = "|".join(("/wo" + r"rk/\w", "/ho" + r"me/\w", "/ro" + r"ot/\."))
SILENCED = "# no" + "qa"


def files() -> Iterator[Path]:
    for folder, subfolders, names in os.walk(ROOT):
        subfolders[:] = [
            name for name in subfolders if not NOT_OURS.match(name) and not Path(folder, name).is_symlink()
        ]
        names = [name for name in names if name != ".git"]  # a file in a second working tree
        yield from (path for name in names if not (path := Path(folder, name)).is_symlink())


def lines_with(pattern: str) -> list[str]:
    """file:line of every line of text that matches."""
    sought = re.compile(pattern)
    found = []
    for file in files():
        try:
            text = file.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found += [
            f"{file.relative_to(ROOT)}:{number}: {line.strip()}"
            for number, line in enumerate(text.splitlines(), 1)
            if sought.search(line)
        ]
    return found


@pytest.mark.parametrize("pattern", [REGISTRIES, MACHINE_PATHS, SILENCED])
def test_no_file_contains(pattern: str) -> None:
    assert lines_with(pattern) == []


@pytest.mark.parametrize("script", ["tools/setup", ".ci/run"])
def test_scripts_are_executable_bash(script: str) -> None:
    assert os.access(ROOT / script, os.X_OK)
    subprocess.run(["bash", "-n", ROOT / script], check=True, timeout=20)


@pytest.mark.needs("make")
def test_make_help_lists_every_target() -> None:
    listed = subprocess.run(["make", "-C", ROOT], check=True, capture_output=True, text=True, timeout=20).stdout
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert phony is not None
    for target in phony.group(1).split():
        assert re.search(rf"^  make {target} +\S", listed, re.MULTILINE), f"make help does not list {target}"


def test_ci_lets_nothing_be_skipped() -> None:
    assert "SIDECAR_BOOT=1 make test" in (ROOT / ".ci" / "run").read_text()


def test_a_skip_fails_where_all_must_run(tmp_path: Path) -> None:
    """The rule itself, on a suite of one skipped test that uses our conftest.py."""
    suite = tmp_path / "tests"
    suite.mkdir()
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = needs(*programs): known to conftest.py\n")
    (suite / "conftest.py").write_bytes((ROOT / "tests" / "conftest.py").read_bytes())
    (suite / "test_one.py").write_text(
        "import pytest\n@pytest.mark.needs('no-such-program')\ndef test_one() -> None: pass\n"
        "@pytest.mark.xfail\ndef test_two() -> None: assert False\n"
    )
    (suite / "test_module.py").write_text("import pytest\npytest.skip('not today', allow_module_level=True)\n")
    with ThreadPoolExecutor() as pool:
        unset, never, must = pool.map(lambda boot: run_suite(suite, boot), (None, "0", "1"))
    assert unset == (0, "2 skipped, 1 xfailed")
    assert never == (0, "2 skipped, 1 xfailed")
    assert must[0] != 0


def run_suite(suite: Path, boot: str | None) -> tuple[int, str]:
    environment = {name: value for name, value in os.environ.items() if name != "SIDECAR_BOOT"}
    environment["PYTHONPATH"] = str(ROOT)  # conftest.py imports tests.support
    if boot is not None:
        environment["SIDECAR_BOOT"] = boot
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", str(suite)]
    run = subprocess.run(command, cwd=suite, env=environment, capture_output=True, text=True, timeout=60, check=False)
    closing = re.search(r"=+ (.*) in [\d.]+s", run.stdout.splitlines()[-1])
    return run.returncode, closing.group(1) if closing else run.stdout
