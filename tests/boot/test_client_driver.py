"""The client in a guest with the driver loaded: sidecarctl, claims, faults, conversion, another ABI."""

import json
import time
from collections.abc import Iterator
from dataclasses import asdict

import pytest

from sidecar.__main__ import main
from sidecar.client.linux import TABLE
from sidecar.layout import CommandPage, SharedPage, abi_hash
from sidecar.layout.acpi import AcpiHeader, Sdcr
from sidecar.qemu.linux_session import LinuxSession
from tests.support.booted import fresh_directory
from tests.support.linux_client import complaints, ctl, ctl_json, program, start_program
from tests.support.stock_linux import StockLinux

SMP = 6
pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def session(stock_linux: StockLinux, request: pytest.FixtureRequest) -> Iterator[LinuxSession]:
    with stock_linux.guest(fresh_directory(request), smp=SMP) as booted:
        booted.load_driver()
        yield booted


@pytest.fixture(autouse=True)
def the_kernel_is_content(session: LinuxSession) -> Iterator[None]:
    yield
    assert complaints(session) == []


def test_list_and_ping(session: LinuxSession) -> None:
    data = ctl_json(session, "list")
    assert (data["backing"], data["abi_hash"]) == ("driver", abi_hash())
    assert [cpu["state"] for cpu in data["cpus"]] == ["linux"] + ["idle"] * (SMP - 1)
    answers = ctl_json(session, "ping", "--count", "3")["cpus"]
    assert [(one["linux_number"], one["apic_id"], one["answered"]) for one in answers] == [
        (number, number, True) for number in range(1, SMP)
    ]


def test_linux_shows_the_table_and_it_is_decoded(session: LinuxSession, capsys: pytest.CaptureFixture[str]) -> None:
    file = session.machine.directory / "SDCR"
    file.write_bytes(session.guest.read(f"/sys/{TABLE}"))
    assert main(["dump", "sdcr", str(file), "--format", "json"]) == 0
    assert session.found is not None
    shown = json.loads(capsys.readouterr().out)
    assert shown | {"sdcr_pa": session.found.sdcr_pa} == json.loads(json.dumps(asdict(session.found)))
    assert main(["dump", "sdcr", str(file)]) == 0
    assert f"0-{SMP - 1}" in capsys.readouterr().out


@pytest.mark.parametrize("command", [
    ["list"], ["ping"], ["ping", "apic:2", "0:3"], ["regs", "1"], ["run", "2"], ["log"], ["faults", "1"], ["faults"],
    ["restart", "1"], ["watch", "--looks", "1", "--interval", "0.1"],
])  # fmt: skip
def test_commands_print_text_or_json(session: LinuxSession, command: list[str]) -> None:
    text, data = ctl(session, *command), ctl(session, *command, "--json")
    assert (text.status, data.status) == (0, 0), text.error + data.error
    assert text.error == data.error == ""
    if command[0] != "watch":
        assert data.data is not None
        assert text.out
        assert text.out != data.out


def test_registers_stay_with_the_cpu(session: LinuxSession) -> None:
    assert ctl(session, "regs", "0:3", "dr0=0x1234").out.split() == ["HvX64RegisterDr0", "0x1234"]
    assert ctl_json(session, "regs", "apic:3", "dr0")["registers"] == {"HvX64RegisterDr0": 0x1234}
    assert ctl_json(session, "regs", "4", "dr0")["registers"] == {"HvX64RegisterDr0": 0}


def test_a_fault(session: LinuxSession) -> None:
    """At the client, in sysfs and in the kernel's log; nobody else notices."""
    before = session.guest.read("/proc/sys/kernel/random/boot_id")
    said = ctl(session, "run", "2", "--command", "raise", "--kind", "page_fault", "--argument", "0x1234")
    assert said.status == 1
    assert said.error.startswith("sidecarctl: CPU 2 (APIC id 0x2, node 0, index 2) faulted: #PF (vector 14)")
    assert said.error.rstrip().endswith("cr2 0x1234, in command 0x100; restart it to use it again")
    (entry,) = ctl_json(session, "faults")
    assert (entry["linux_number"], entry["exception"], entry["cr2"], entry["state"]) == (2, "#PF", 0x1234, "faulted")
    assert "CPU 2 (APIC id 0x2, node 0, index 2): #PF" in session.guest.log()
    answers = ctl(session, "ping", "--json")
    assert answers.status == 1
    assert [one["linux_number"] for one in answers.data["cpus"] if not one["answered"]] == [2]
    assert ctl_json(session, "restart", "2")["state"] == "idle"
    assert ctl(session, "ping", "2").status == 0
    assert session.guest.read("/proc/sys/kernel/random/boot_id") == before


def test_a_cpu_that_hangs(session: LinuxSession) -> None:
    """By the caller's patience and by the driver's own."""
    session.guest.run("echo 1000 > /sys/module/sidecar/parameters/timeout_ms").check()
    for seconds, shown in (("0.2", "0.2"), ("5", "1")):
        said = ctl(session, "run", "3", "--command", "raise", "--kind", "spin", "--seconds", seconds)
        assert said.status == 1
        assert f"did not finish RAISE within {shown} s, its status was RUN; it was restarted" in said.error
        assert ctl(session, "ping", "3").status == 0
    session.guest.run("echo 5000 > /sys/module/sidecar/parameters/timeout_ms").check()


def test_conversion_and_return(session: LinuxSession) -> None:
    assert ctl_json(session, "convert", "5")["state"] == "linux"
    assert session.online_cpus() == {0, 5}
    assert session.guest.run("taskset -c 5 cat /proc/self/stat").check().stdout.split()[38] == "5"
    said = ctl(session, "ping", "5")
    assert said.status == 1
    assert "CPU 5 (APIC id 0x5, node 0, index 5) is not the sidecar's: Linux runs it" in said.out
    assert ctl_json(session, "return", "5")["state"] == "idle"
    assert session.online_cpus() == {0}
    answer = ctl_json(session, "ping", "5")["cpus"][0]
    assert answer["answered"]
    said = ctl(session, "return", "0")
    assert (said.status, said.error) == (
        1, "sidecarctl: CPU 0 (APIC id 0x0, node 0, index 0) is the first of its node: Linux keeps it\n"
    )


def test_claims_between_processes(session: LinuxSession) -> None:
    result = program(session, "claims.py")
    assert result == {
        "busy": "CPU 1 (APIC id 0x1, node 0, index 1) is claimed by another open file, or a command is running on it",
        "busy restart": result["busy"],
        "other": True,
        "after the end of the block": True,
        "after a kill": True,
        "foreign page": "Permission denied",
        "after a claim was lost": -7,
    }


def test_an_event_loop(session: LinuxSession) -> None:
    result = program(session, "event_loop.py", "1", "2", "3", "4")
    assert result == {
        "registers": [0x101, 0x202, 0x303, 0x404], "cancelled": "idle", "timed out": True, "fault": "#GP",
        "after all": True,
    }


WATCHED = """
sidecarctl watch 4 --interval 0.2 --json > /tmp/watched &
for _ in $(seq 60); do
    sidecarctl ping 4 > /dev/null
    grep -q commands /tmp/watched && break
done
kill $!
cat /tmp/watched
"""


def test_watch(session: LinuxSession) -> None:
    """Pings until one of them has been seen."""
    out = session.guest.run(WATCHED, timeout=100).check().stdout
    assert '"linux_number": 4' in out
    assert '"commands": [' in out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["ping", "77"], f"CPU 77 is in no sidecar node; there are CPUs 0-{SMP - 1}"),
        (["ping", "--backing", "no-module"], "the sidecar's driver is loaded and has the machine: use it, or unload it "
                                             "first (rmmod sidecar)"),
    ],
)
def test_mistakes(session: LinuxSession, arguments: list[str], sentence: str) -> None:
    said = ctl(session, *arguments)
    assert (said.status, said.out, said.error) == (2, "", f"sidecarctl: {sentence}\n")


def test_the_driver_stays_while_a_client_is_open(session: LinuxSession) -> None:
    holder = start_program(session, "hold.py", "1")
    while b"held" not in holder.stdout:
        time.sleep(0.1)
    assert session.guest.run("rmmod sidecar").status != 0
    holder.kill()
    holder.wait(20)
    assert ctl(session, "ping", "1").status == 0


def test_another_abi_on_a_command_page(session: LinuxSession) -> None:
    assert session.found is not None
    pa = session.found.shared_page_pa(session.found.cpu(1), SharedPage.COMMAND)
    field = session.machine.ram.view(pa + int(CommandPage.abi_hash), 8)
    field[:] = (abi_hash() ^ 1).to_bytes(8, "little")
    try:
        said = ctl(session, "ping", "1")
    finally:
        field[:] = abi_hash().to_bytes(8, "little")
    assert said.status == 2
    assert said.error.startswith(
        f"sidecarctl: the command page of CPU 1 (APIC id 0x1, node 0, index 1) has ABI version 1, hash "
        f"{abi_hash() ^ 1:#018x}; these tools have version 1, hash {abi_hash():#018x}"
    )
    assert ctl(session, "ping", "1").status == 0


def test_another_abi_in_the_table(session: LinuxSession) -> None:
    """Linux shows the table as it stands in memory."""
    assert session.found is not None
    table = session.machine.ram.view(session.found.sdcr_pa, Sdcr.SIZE)
    kept = bytes(table)
    table[int(Sdcr.abi_hash)] ^= 1
    table[int(AcpiHeader.checksum)] = (table[int(AcpiHeader.checksum)] - sum(table) + sum(kept)) % 256
    try:
        said = ctl(session, "list")
    finally:
        table[:] = kept
    assert said.status == 2
    assert f"the SDCR table in /sys/{TABLE} has ABI version 1, hash 0x" in said.error
    assert f"these tools have version 1, hash {abi_hash():#018x}" in said.error
