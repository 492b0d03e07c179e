"""The race of clients in a guest (in_guest/race.py), and what must be true of its tallies."""

from collections.abc import Sequence
from typing import Any

from sidecar.qemu.linux_session import LinuxSession
from tests.support.linux_client import complaints, ctl_json, program

EXTRA_SECONDS = 120.0


def race(
    session: LinuxSession, backing: str, *, commands: int, seconds: float, kill_every: float, cpus: Sequence[int]
) -> Any:
    """Runs it to its end, which is `commands` answered or the time over, and checks it; returns the tallies."""
    arguments = [backing, str(commands), str(seconds), str(kill_every), *map(str, cpus)]
    result = program(session, "race.py", *arguments, seconds=seconds + EXTRA_SECONDS)
    print(f"{answered(result)} commands in {result['seconds']} s, {result['kills']} clients killed: {result['cpus']}")
    for name, tally in result["cpus"].items():
        assert tally["answered"] <= tally["counted"] <= tally["begun"], f"CPU {name}: {tally}"
        assert tally["stopped"], f"CPU {name}: {tally}"
        assert tally["refused"], f"CPU {name}: {tally}"
        if int(name) not in result["contested"]:
            assert tally["answered"] == tally["begun"], f"CPU {name}: {tally}"
    answers = ctl_json(session, "ping", "--backing", backing)["cpus"]
    assert all(one["answered"] and one["state"] == "idle" for one in answers)
    assert complaints(session) == []
    return result


def answered(result: Any) -> int:
    return sum(tally["answered"] for tally in result["cpus"].values())
