"""CPUs that fault, hang or are killed under a client while Linux runs; all of them can be used afterwards."""

import re

from sidecar.layout import PAGE_SIZE, ControlPage
from sidecar.qemu.linux_session import LinuxSession
from tests.support.kernel_log import KernelLog
from tests.support.linux_client import ctl
from tests.support.linux_driver import case, found, shown, switch, used
from tests.support.shared_linux import OURS, SMP

BUSY_HOST_SECONDS = 50
RACE_SECONDS = 4
ROUNDS = 24
BOOT_ID = "/proc/sys/kernel/random/boot_id"


def test_a_fault_is_eio_and_a_line_in_the_log(driven: LinuxSession) -> None:
    log = KernelLog(driven)
    result = case(driven, "faults")
    line = result.pop("last fault")
    assert result == {
        "run": "EIO", "status": "faulted", "state": "available", "again": ["EIO", "EIO"], "restart": [0, 0, "idle"],
        "started": [0, True, [2], "faulted"], "left behind": ["EIO", 0, 0], "counted": [2, 2],
    }  # fmt: skip
    assert line.startswith("#PF (vector 14), error code 0x0, rip image+0x")
    assert line.endswith(", cr2 0x4242, in command 0x100")
    text = log.text
    assert text.count(f"CPU 2 (APIC id 0x2, node 0, index 2): {line}; it is faulted until it is restarted") == 1
    assert text.count("index 2): #UD (vector 6)") == 1


def test_linux_and_the_others_go_on_and_every_cpu_is_linuxs_in_the_end(driven: LinuxSession) -> None:
    """Two CPUs fault; Linux is the same, the others answer, the two come back, and then Linux takes all."""
    boot_id = driven.guest.read(BOOT_ID)
    for cpu, kind in ((3, "double_fault"), (4, "invalid_opcode")):
        said = ctl(driven, "run", str(cpu), "--command", "raise", "--kind", kind)
        assert said.status == 1
        assert f"CPU {cpu} (APIC id 0x{cpu}, node 0, index {cpu}) faulted" in said.error
    answers = ctl(driven, "ping", "--json").data["cpus"]
    assert [one["linux_number"] for one in answers if not one["answered"]] == [3, 4]
    assert ctl(driven, "restart", "3").status == 0  # Linux takes the other one as it is
    for cpu in OURS:
        switch(driven, cpu, True)
    assert driven.online_cpus() == set(range(SMP))
    assert all(used(driven, cpu) for cpu in OURS)
    assert driven.guest.read(BOOT_ID) == boot_id
    for cpu in OURS:
        switch(driven, cpu, False)
    assert ctl(driven, "ping").status == 0


def test_a_command_that_does_not_end(driven: LinuxSession) -> None:
    """RUN gives up, a closed file too; the CPU is restarted before anybody else can have it."""
    log = KernelLog(driven)
    result = case(driven, "late")
    assert 0.25 <= result.pop("seconds") < BUSY_HOST_SECONDS
    assert 0.25 <= result.pop("closing seconds") < BUSY_HOST_SECONDS
    assert result == {"run": "ETIMEDOUT", "after": ["available", 0], "closed": 0, "counted": [2, 2]}
    text = log.text
    end = "within 300 ms, its status is run, its last command 0x100: restarting it"
    assert f"CPU 3 (APIC id 0x3, node 0, index 3): did not end a command {end}" in text
    assert "index 3): did not end a command whose file was closed within 300 ms, its status is stop" in text
    assert text.count("index 3): was restarted") == 2


def test_a_cpu_without_a_sign_of_life_is_told_as_stuck(driven: LinuxSession) -> None:
    """By a line in the log and in sysfs, and so is its end; nothing is done to it."""
    log = KernelLog(driven)
    assert case(driven, "stuck") == {
        "idle": "0", "start": 0, "stuck": True, "stop": [1, True, [2]], "well": True,
    }  # fmt: skip
    text = log.text
    assert re.search(r"CPU 2 \(APIC id 0x2, node 0, index 2\): is stuck since \d+ ms in command raise \(0x100\), "
                     r"status run: stop the command, or restart the CPU", text)
    assert "index 2): is not stuck any more, after " in text


def test_an_end_whose_interrupt_is_lost_is_heard(driven: LinuxSession) -> None:
    """The control page names no vector, so the CPU sends nothing; the heartbeat finds its attention."""
    control = driven.machine.ram.view(found(driven).nodes[0].control_pa, PAGE_SIZE)
    vector = slice(int(ControlPage.response_vector), int(ControlPage.response_vector) + 4)
    before = bytes(control[vector])
    control[vector] = bytes(4)
    try:
        assert case(driven, "unheard") == {
            "start": 0, "ended": False, "waited": True, "heard": True, "read": [2], "interrupts": 0,
        }  # fmt: skip
    finally:
        control[vector] = before


def test_killed_clients_leave_cpus_that_answer(driven: LinuxSession) -> None:
    assert case(driven, "killed", ROUNDS) == {"answers": ["0"], "timed out": False}


def test_races_lose_and_repeat_nothing(driven: LinuxSession) -> None:
    """START, STOP, RUN and read on all CPUs at once, each answer with its command's number."""
    result = case(driven, "races", RACE_SECONDS, *OURS)
    assert result["wrong"] == [0] * len(OURS)
    assert min(result["commands"]) > 3
    assert int(shown(driven, 1, "commands")) >= result["commands"][0]
