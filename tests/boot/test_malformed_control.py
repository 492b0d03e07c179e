"""Control pages as no driver leaves them: status bytes from nowhere, a wrong response target, garbage all over.

The same checks with many more examples are in tests/campaign; what they check is in tests/support/malformed_control.py.
"""

import hypothesis
import pytest
from hypothesis import strategies

from sidecar.layout import CpuStatus, RaiseKind
from sidecar.protocol.errors import ProtocolError
from sidecar.qemu.session import Session
from tests.support import cpus, malformed, malformed_control


@pytest.mark.parametrize("high", range(16))
def test_every_status_byte(session: Session, high: int) -> None:
    for low in range(16):
        malformed_control.check_status_byte(session, session.cpus[2], high << 4 | low)


@hypothesis.settings(max_examples=60)
@hypothesis.given(statuses=strategies.lists(malformed.status_bytes, min_size=1, max_size=6))
def test_any_statuses_during_a_command(machine: Session, statuses: list[int]) -> None:
    malformed_control.check_status_during_a_command(machine, machine.cpus[2], statuses)


@pytest.mark.parametrize("status", sorted(set(CpuStatus) - {CpuStatus.IDLE}))
def test_the_driver_says_what_it_found(session: Session, status: CpuStatus) -> None:
    cpu = session.cpus[1]
    record = cpu.pages.diagnostic.fault
    faults, record.count = int(record.count), 0  # else the last real fault of this machine would be told
    malformed.force(cpu, status)
    with pytest.raises(ProtocolError, match=f"CPU 1 .* is not idle: its status is {status.name}"):
        cpu.none()
    record.count = faults
    malformed.recover(session, cpu)


@hypothesis.settings(max_examples=80)
@hypothesis.given(target=malformed.response_targets)
def test_any_response_target(machine: Session, target: tuple[int, int]) -> None:
    malformed_control.check_response_target(machine, machine.cpus[2], *target)


@pytest.mark.parametrize("apic_id", [0, 1, 3, 0xFFFFFFFE, 0xFFFFFFFF])
@pytest.mark.parametrize("vector", [0, 1, 2, 8, 14, 18, 31, 32, 0x30, 0xFF, 0x100, 0x102, 0x112, 1 << 31])
def test_strange_response_targets(session: Session, apic_id: int, vector: int) -> None:
    """Vectors below 32 are exceptions: as an interrupt they would make a fault of nothing."""
    malformed_control.check_response_target(session, session.cpus[2], apic_id, vector)


@pytest.mark.parametrize("vector", [0, 2, 18, 0x112])
def test_a_nested_fault_with_a_strange_response_target(session: Session, vector: int) -> None:
    """It is reported by other code, from the transition tables."""
    cpu, response = session.cpus[1], session.driver.nodes[0].response
    with malformed.undisturbed(cpus.others(session, cpu)):
        response.store(session.cpus[2].numbers.apic_id | vector << 32)
        assert cpus.fault_of(cpu, RaiseKind.CORRUPT_PAGE_TABLE, 4).nested
        cpus.assert_halted_in(session, cpu, "halt_forever")
        session.driver.attach()


@pytest.mark.parametrize("seed", range(10))
def test_garbage_on_the_control_page(session: Session, seed: int) -> None:
    malformed_control.check_control_page(session, session.cpus[2], seed)
