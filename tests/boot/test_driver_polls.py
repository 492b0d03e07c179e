"""Driver and CPU that look for each other for a while before they sleep: poll_us and halt_poll_us."""

from sidecar.qemu.linux_session import LinuxSession
from sidecar.qemu.waiting import wait_until
from tests.support.linux_client import ctl
from tests.support.linux_driver import PARAMETERS, case
from tests.support.linux_vmm import privileged

ROUNDS = 150


def test_no_command_and_no_end_is_missed_whoever_looks(driven: LinuxSession) -> None:
    """Pauses end before, while and after the other side goes to sleep; a wake-up that gets lost ends in a time-out."""
    result = case(driven, "polls", ROUNDS)
    requests = {way: counted.pop("requests") for way, counted in result.items()}
    done = {"wrong": [], "commands": ROUNDS, "faults": 0, "timeouts": 0}
    assert result == {"neither": done, "driver": done, "cpu": done, "both": done}
    assert requests["cpu"] < ROUNDS  # some commands needed none
    assert requests["both"] < ROUNDS


def test_a_cpu_that_was_not_asked_for_long_halts(driven: LinuxSession) -> None:
    parameter = f"{PARAMETERS}/halt_poll_us"
    driven.guest.run(f"echo 1000 > {parameter}").check()
    try:
        assert ctl(driven, "ping").status == 0
    finally:
        driven.guest.run(f"echo 0 > {parameter}").check()
    assert privileged(driven, 2).halt_poll > 0
    wait_until(lambda: privileged(driven, 2).polling == 0, seconds=60, what="CPU 2 halts")
    assert ctl(driven, "ping").status == 0
    assert privileged(driven, 2).halt_poll == privileged(driven, 2).polling == 0


def test_parameters_out_of_range_are_refused(driven: LinuxSession) -> None:
    for name in ("poll_us", "halt_poll_us"):
        for value in ("1001", "-1", "x"):
            said = driven.guest.run(f"echo {value} > {PARAMETERS}/{name}")
            assert said.status != 0, (name, value)
            assert "Invalid argument" in said.stderr
