"""CPUs whose APIC ids leave gaps, and CPUs that are described but not there: QEMU's own list is the judge."""

from pathlib import Path

import pytest

from sidecar.qemu.session import Session

TOPOLOGIES = {
    "6,sockets=2,cores=3": [0, 1, 2, 4, 5, 6],
    "6,sockets=2,cores=1,threads=3": [0, 1, 2, 4, 5, 6],
    "12,sockets=2,dies=2,cores=3": [0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14],
    "4,maxcpus=8": [0, 1, 2, 3],
    "3,sockets=3,maxcpus=9,cores=3": [0, 1, 2],
    "5,sockets=100,maxcpus=500,cores=5": [0, 1, 2, 3, 4],
}
"""-smp arguments and the APIC ids of the CPUs that run."""


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_apic_ids_with_gaps(topology: str, run_directory: Path) -> None:
    smp = int(topology.split(",")[0])
    with Session(smp=smp, extra=("-smp", topology), directory=run_directory) as session:
        apic_ids = [cpu.apic_id for cpu in session.found.cpus]
        assert apic_ids == TOPOLOGIES[topology]
        for judge, apic_id in zip(session.machine.qmp("query-cpus-fast"), apic_ids, strict=True):
            assert session.machine.qmp("qom-get", path=judge["qom-path"], property="apic-id") == apic_id
        assert len(session.cpus) == smp - 1
        for cpu in session.cpus.values():
            cpu.none()
            assert cpu.pages.diagnostic.boot.apic_id == session.found.cpu(cpu.number).apic_id


def test_an_apic_id_far_above_the_number_of_cpus(run_directory: Path) -> None:
    """Of 900 possible CPUs only the first two and the last are there."""
    last = ("-device", "max-x86_64-cpu,socket-id=449,core-id=1,thread-id=0")
    topology = ("-smp", "2,maxcpus=900,sockets=450,cores=2")
    with Session(smp=2, extra=(*topology, *last), directory=run_directory) as session:
        assert [cpu.apic_id for cpu in session.found.cpus] == [0, 1, 899]
        for cpu in session.cpus.values():
            cpu.none()
        assert session.cpus[2].pages.diagnostic.boot.apic_id == 899
