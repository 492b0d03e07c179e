"""A CPU that the tables promise and that is not there: reported within a bound, and turned away when it comes late.

The late one is plugged into the running machine through QMP.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from sidecar.layout import CpuPolicy, CpuStatus
from sidecar.protocol.errors import CpuAway
from sidecar.qemu.session import Session
from tests.support.booted import fresh_directory, send_startup, wait_turned_away

MISSING, APIC_ID = 4, 77
"""Linux number and APIC id of the CPU that is not there. QEMU numbers a CPU by its place among all possible ones."""
POSSIBLE = "4,maxcpus=100,sockets=100,cores=1"
ATTEMPTS, ATTEMPT_SECONDS = 3, 1.0
BOOT_SECONDS = 100.0


@pytest.fixture(scope="module")
def session(request: pytest.FixtureRequest) -> Iterator[Session]:
    with Session(
        smp=4,
        extra=("-smp", POSSIBLE),
        append=f"sidecar.phantom={APIC_ID}",
        tests=True,
        seconds=BOOT_SECONDS,
        directory=fresh_directory(request),
    ) as booted:
        yield booted


@pytest.fixture(autouse=True)
def run_directory(session: Session) -> Path:
    return session.machine.directory


def test_it_is_reported_by_its_apic_id_after_three_attempts(session: Session) -> None:
    found = session.found
    assert found.missing_count == 1
    assert session.notes == [f"the CPU with APIC id {APIC_ID} did not start"]
    seconds = (found.all_idle_tsc - found.first_init_tsc) / found.tsc_khz / 1000
    assert ATTEMPTS * ATTEMPT_SECONDS <= seconds < ATTEMPTS * ATTEMPT_SECONDS + 3


def test_its_claim_is_revoked(session: Session) -> None:
    missing = session.found.cpu(MISSING)
    assert (missing.apic_id, missing.node, missing.policy) == (APIC_ID, 0, CpuPolicy.SIDECAR)
    assert session.driver.status(MISSING) == CpuStatus.REMOVED
    assert session.driver.pages(MISSING).diagnostic.boot.arrivals == 0
    with pytest.raises(CpuAway):
        session.cpus[MISSING].none()


def test_the_others_answer(session: Session) -> None:
    for number in set(session.cpus) - {MISSING}:
        session.cpus[number].none()
        assert 1 <= session.driver.pages(number).diagnostic.boot.arrivals <= ATTEMPTS


def test_it_is_turned_away_when_it_comes_late_and_can_be_given_to_the_sidecar(session: Session) -> None:
    session.machine.qmp("device_add", driver="max-x86_64-cpu", id="late", socket_id=APIC_ID, core_id=0, thread_id=0)
    (late,) = (cpu for cpu in session.machine.qmp("query-cpus-fast") if cpu["cpu-index"] == APIC_ID)
    assert session.machine.qmp("qom-get", path=late["qom-path"], property="apic-id") == APIC_ID
    send_startup(session, [session.found.cpu(MISSING)])
    wait_turned_away(session, late["cpu-index"])
    assert session.driver.status(MISSING) == CpuStatus.REMOVED
    assert session.driver.pages(MISSING).diagnostic.boot.arrivals == 0
    for number in set(session.cpus) - {MISSING}:
        session.cpus[number].none()

    session.driver.give_back(MISSING)
    session.cpus[MISSING].none()
    boot = session.driver.pages(MISSING).diagnostic.boot
    assert (boot.linux_number, boot.apic_id) == (MISSING, APIC_ID)


def test_a_machine_whose_only_sidecar_cpu_is_not_there(request: pytest.FixtureRequest) -> None:
    words, directory = f"sidecar.phantom={APIC_ID}", fresh_directory(request, "alone")
    with Session(smp=1, append=words, seconds=BOOT_SECONDS, directory=directory) as alone:
        assert alone.found.missing_count == 1
        assert alone.notes == [f"the CPU with APIC id {APIC_ID} did not start"]
        assert "sidecar: 0 CPUs idle in 1 nodes" in alone.console
