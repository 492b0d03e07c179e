"""The race of clients in a guest (in_guest/race.py), and what must be true of its tallies."""

import json
from collections.abc import Sequence
from typing import Any

from sidecar.qemu.linux_session import LinuxSession
from tests.support.linux_client import complaints, ctl, ctl_json
from tests.support.program_server import PROGRAMS

EXTRA_SECONDS = 120.0
MODULE = "tests.support.in_guest.race"
FOLDER = "/root/" + MODULE.rpartition(".")[0].replace(".", "/")


def race(
    session: LinuxSession, backing: str, *, commands: int, seconds: float, kill_every: float, cpus: Sequence[int]
) -> Any:
    """Runs it to its end, which is `commands` answered or the time over, and checks it; returns the tallies."""
    arguments = [backing, str(commands), str(seconds), str(kill_every), *map(str, cpus)]
    session.guest.run(["mkdir", "-p", FOLDER]).check()
    for file in PROGRAMS.glob("race*.py"):
        session.guest.put(file, f"{FOLDER}/{file.name}")
    ended = session.guest.run(["python3", "-m", MODULE, *arguments], seconds + EXTRA_SECONDS)
    assert ended.status == 0, ended.stderr[-2000:]
    result = json.loads(ended.stdout)
    print(f"{answered(result)} commands in {result['seconds']} s, {result['kills']} clients killed: {result['cpus']}")
    for name, tally in result["cpus"].items():
        assert tally["answered"] <= tally["counted"] <= tally["begun"], f"CPU {name}: {tally}"
        assert tally["stopped"], f"CPU {name}: {tally}"
        assert tally["refused"], f"CPU {name}: {tally}"
        if int(name) in result["contested"]:
            assert tally["closed"], f"CPU {name}: {tally}"
            assert tally["busy"], f"CPU {name}: {tally}"
        else:
            assert tally["answered"] == tally["begun"], f"CPU {name}: {tally}"
    answers = ctl_json(session, "ping", "--backing", backing)["cpus"]
    assert all(one["answered"] and one["state"] == "idle" for one in answers)
    assert complaints(session) == []
    return result


def answered(result: Any) -> int:
    return sum(tally["answered"] for tally in result["cpus"].values())


def second_linux_cpu(session: LinuxSession, cpu: int) -> None:
    """Loads the driver and gives Linux a second CPU, so that clients run at the same time."""
    session.load_driver()
    assert ctl(session, "convert", str(cpu)).status == 0
