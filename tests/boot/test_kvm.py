"""The same guests under Linux's own `kvm-amd` and on the sidecar, in one machine: the same exits and registers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from sidecar.bench.programs import FOR_THE_GUEST, compile_program
from sidecar.qemu.linux_session import LinuxSession
from tests.support.compared_guests import image, rom
from tests.support.compared_programs import GUESTS
from tests.support.kernel_log import KernelLog
from tests.support.kvm_comparison import REGISTERS, differences
from tests.support.linux_driver import states
from tests.support.program_server import PROGRAMS
from tests.support.shared_linux import AS_BOOTED, SharedLinux
from tests.support.transcripts import Record, parse

pytestmark = [pytest.mark.timeout(900), pytest.mark.needs("gcc")]

SECONDS = 250.0
FOLDER = "/root/compared"
CPU = 1
Transcripts = dict[str, list[Record]]


@dataclass(frozen=True, slots=True)
class Both:
    """What both tell of all guests."""

    ours: Transcripts
    kvms: Transcripts


@pytest.fixture(scope="module")
def both(shared_linux: SharedLinux, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    """KVM gets the answers of CPUID that the sidecar gives: so it is the same processor that its guest sees."""
    session = shared_linux.driven()
    log = KernelLog(session)
    put_files(session, tmp_path_factory.mktemp("kvm"))
    files = " ".join([f"{FOLDER}/rom", *(f"{FOLDER}/{name}.img" for name in GUESTS)])
    session.guest.run(f"python3 {FOLDER}/vp_run.py {CPU} {FOLDER}/cpuid {files} > {FOLDER}/ours", SECONDS).check()
    session.load_kvm()
    session.guest.run(f"{FOLDER}/kvm_run {FOLDER}/cpuid {files} > {FOLDER}/kvms", SECONDS).check()
    session.unload_kvm()
    yield Both(*(parse(session.guest.read(f"{FOLDER}/{name}", SECONDS).decode()) for name in ("ours", "kvms")))
    assert states(session) == AS_BOOTED
    assert log.complaints() == []


def put_files(session: LinuxSession, scratch: Path) -> None:
    program = compile_program(PROGRAMS / "kvm_run.c", scratch / "kvm_run", *FOR_THE_GUEST)
    session.guest.run(["mkdir", "-p", FOLDER]).check()
    session.guest.put(program, f"{FOLDER}/kvm_run", mode=0o755)
    session.guest.put(PROGRAMS / "vp_run.py", f"{FOLDER}/vp_run.py")
    session.guest.put(rom(), f"{FOLDER}/rom")
    for name, text in GUESTS.items():
        session.guest.put(image(text), f"{FOLDER}/{name}.img")


@pytest.mark.parametrize("guest", GUESTS)
def test_every_exit_and_every_register(both: Both, guest: str) -> None:
    assert differences(both.ours[guest], both.kvms[guest]) == []


def test_the_guests_ran_to_their_ends(both: Both) -> None:
    """An HLT with interrupts off, or what the guest is named for; and there was something to compare."""
    ends = {name: records[-1].exit for name, records in both.ours.items()}
    assert ends == dict.fromkeys(GUESTS, "halt") | {"triple-fault": "triple fault"}
    seen = {record.exit for records in both.ours.values() for record in records}
    assert seen == {"reset", "port", "memory", "msr", "halt", "interrupt window", "triple fault"}
    assert sum(map(len, both.ours.values())) > 250


def test_a_changed_register_is_found(both: Both) -> None:
    """Every register but those that are stated not to be compared, where the guest has loaded all segments."""
    ours, kvms = both.ours["control"], both.kvms["control"]
    *before, last, look, halt = kvms
    unnoticed = set()
    for name, value in last.registers.items():
        other = replace(last, registers={**last.registers, name: value ^ 1})
        found = differences(ours, [*before, other, look, halt])
        if not found:
            unnoticed.add(name)
        assert not found or any(f": {name} is " in sentence for sentence in found)
    assert unnoticed == REGISTERS.keys() & last.registers.keys()


def test_other_exits_are_found(both: Both) -> None:
    """One too many, one missing, another port, another value, another order."""
    ours, kvms = both.ours["ports"], both.kvms["ports"]
    third = kvms[3]
    (what, port, size, value), = third.accesses  # fmt: skip
    for access in ((what, port + 1, size, value), (what, port, size, value ^ 1), ("in", port, size, value)):
        assert len(differences(ours, [*kvms[:3], replace(third, accesses=(access,)), *kvms[4:]])) == 1
    assert differences(ours, [*kvms, kvms[-1]])
    assert differences(ours, kvms[:-1])
    assert differences(ours, [*kvms[:2], kvms[3], kvms[2], *kvms[4:]])
    assert differences([*ours, ours[-1]], kvms)
