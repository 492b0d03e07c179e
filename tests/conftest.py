"""What may run, what a skip means, and where a test keeps its files.

The variable SIDECAR_BOOT has three states:

    unset   run what can run: without a fitting QEMU the tests in tests/boot are skipped
    0       boot nothing
    1       everything must run: a skip is a failure

A test that starts a machine takes the fixture `run_directory`; what it leaves there stays until its next run, and the
report of a failed test names it.

Test modules that want the same machine without Linux share it: the fixtures `plain`, `machine` and `session`.

A test that boots Debian's kernel takes the fixture `stock_linux`. What it needs is fetched and built before the first
test: no test's time limit is there for a mirror or a compiler.
"""

import os
import re
import shutil
import signal
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from sidecar.errors import UserError
from sidecar.qemu.executable import find_qemu
from sidecar.qemu.linux.apt import AptFailed
from sidecar.qemu.session import Session
from tests.support.cpus import tidy
from tests.support.shared_session import SharedSession
from tests.support.stock_linux import StockLinux, prepare_stock_linux

ROOT = Path(__file__).resolve().parent.parent
RUN_DIRECTORIES = ROOT / "build" / "tests"
BOOT = os.environ.get("SIDECAR_BOOT")
MUST_RUN = BOOT == "1"
PREPARED = pytest.StashKey[StockLinux | Exception]()

hypothesis.settings.register_profile("default", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.load_profile("ci" if MUST_RUN or "CI" in os.environ else "default")


def pytest_configure() -> None:
    if BOOT not in (None, "0", "1"):
        raise pytest.UsageError(f"SIDECAR_BOOT is {BOOT!r}; it may be unset, 0 or 1")
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs start with it ignored


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    reason = why_no_boot()
    for item in items:
        if reason is not None and boots(item):
            item.add_marker(pytest.mark.skip(reason=reason))
        for mark in item.iter_markers("needs"):
            absent = [program for program in mark.args if shutil.which(program) is None]
            if absent:
                item.add_marker(pytest.mark.skip(reason=f"not on PATH: {', '.join(absent)} (make setup)"))


def boots(item: pytest.Item) -> bool:
    return bool({"boot", "campaign"} & set(item.path.relative_to(ROOT).parts[1:-1]))


def why_no_boot() -> str | None:
    """The reason to skip the tests that boot, or None; they are never skipped where they must run."""
    if BOOT == "0":
        return "SIDECAR_BOOT=0"
    if MUST_RUN:
        return None
    try:
        find_qemu().require_x2apic_under_tcg()
    except UserError as error:
        return str(error)
    return None


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> None:
    """Before the first test: prepares what `stock_linux` gives, if a test takes it. Each step is bounded."""
    config = session.config
    takers = [item for item in session.items if "stock_linux" in getattr(item, "fixturenames", ())]
    if config.option.collectonly or all(item.get_closest_marker("skip") for item in takers):
        return
    terminal = config.pluginmanager.get_plugin("terminalreporter")
    assert terminal is not None
    try:
        config.stash[PREPARED] = prepare_stock_linux(lambda line: terminal.write_line(f"stock Linux: {line}"))
    except Exception as error:  # told by every test that takes it
        config.stash[PREPARED] = error


@pytest.fixture(scope="session")
def stock_linux(pytestconfig: pytest.Config) -> StockLinux:
    """Debian's kernels with the driver; skips the test where the mirror of this host does not give them."""
    prepared = pytestconfig.stash[PREPARED]
    if isinstance(prepared, AptFailed):
        pytest.skip(str(prepared))
    if isinstance(prepared, Exception):
        raise prepared
    return prepared


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if MUST_RUN:
        forbid_skip(report)
    values = getattr(item, "funcargs", {})
    for name, title in (("run_directory", "files of this test"), ("shared_directory", "files of the shared machines")):
        if report.failed and name in values:
            report.sections.append((title, str(values[name])))
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    if MUST_RUN:
        forbid_skip(report)
    return report


def forbid_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Turns a skip into a failure. An expected failure also reports as skipped, and stays."""
    if report.skipped and not hasattr(report, "wasxfail"):
        reason: Any = report.longrepr
        report.outcome = "failed"
        report.longrepr = f"skipped, although SIDECAR_BOOT=1: {reason[2] if isinstance(reason, tuple) else reason}"


@pytest.fixture
def run_directory(request: pytest.FixtureRequest) -> Path:
    """An empty directory for the files of this test, kept after it."""
    path = request.path.relative_to(ROOT / "tests").with_suffix("")
    directory = RUN_DIRECTORIES / path / re.sub(r"[^\w.-]+", "-", request.node.name)
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    return directory


# --- machines without Linux that test modules share -------------------------------------------------------------------


@pytest.fixture(scope="session")
def shared_directory() -> Path:
    """Where the shared machines without Linux keep their files, each in a folder of its name."""
    return RUN_DIRECTORIES / "shared"


@pytest.fixture(scope="session")
def shared_plain(shared_directory: Path) -> Iterator[SharedSession]:
    with SharedSession(shared_directory / "plain", smp=4) as shared:
        yield shared


@pytest.fixture(scope="session")
def shared_machine(shared_directory: Path) -> Iterator[SharedSession]:
    with SharedSession(shared_directory / "machine", smp=4, tests=True) as shared:
        yield shared


@pytest.fixture(scope="module")
def plain(shared_plain: SharedSession) -> Session:
    """A machine of four CPUs that forbids RAISE: whatever stands in a page ends by itself."""
    return shared_plain.ready()


@pytest.fixture(scope="module")
def machine(shared_machine: SharedSession) -> Session:
    """A machine of four CPUs whose RAISE command raises faults; a module that wants another one has its own."""
    return shared_machine.ready()


@pytest.fixture
def session(machine: Session) -> Iterator[Session]:
    """The same, with its CPUs idle again after the test."""
    yield machine
    tidy(machine)
