"""The document: every figure with the command that made it, and what there was no time for."""

from sidecar.bench.document import Run, document, text
from sidecar.bench.figures import Aim, Figure, Group, Table, measured

GROUP = Group(
    "boot", "Boot", (measured("64 CPUs", [2.0, 1.0, 9.0], "s", 1, Aim("under 2 s", 2.0)), Figure("size", "7 bytes")),
    text="How it was done.", tables=(Table("Linux 6.1", ("CPUs", "all"), (("2", "3.0 s"),)),), pictures=("boot.svg",),
)  # fmt: skip
RUN = Run("a host", "sidecar bench --json x", 3.4, (0.1, 1.25), ("64 CPUs",))


def test_the_document() -> None:
    written = document([GROUP], RUN)
    for part in (
        "Host: a host; load average 0.1 at the begin and 1.2 at the end. All of it, in 3 minutes:\n\n"
        "    sidecar bench --json x\n",
        "In this run there was no time for: 64 CPUs.\n",
        "## Boot\n\n    sidecar bench --only boot\n\nHow it was done.\n\n| what | measured | range | aim |\n",
        "| 64 CPUs | 2.0 s | 1.0 to 9.0 s, 3 runs | under 2 s |\n| size | 7 bytes |  |  |\n",
        "### Linux 6.1\n\n| CPUs | all |\n|---|---|\n| 2 | 3.0 s |\n",
        "![Boot](boot.svg)\n",
    ):
        assert part in written


def test_for_a_terminal() -> None:
    assert text(GROUP) == (
        "Boot:\n  64 CPUs: 2.0 s (1.0 to 9.0 s, 3 runs, aim: under 2 s)\n  size: 7 bytes\n"
        "  Linux 6.1\n  CPUs  all\n  2     3.0 s"
    )


def test_samples_are_kept_for_programs() -> None:
    assert GROUP.figures[0].samples == (2.0, 1.0, 9.0)
    assert GROUP.figures[0].unit == "s"


def test_a_missed_aim_is_told_by_how_much_and_why() -> None:
    aim = Aim("over 500", 500, at_least=True, why="There are few cores.")
    figures = (
        Figure("times", "250", "", aim, (250.0,)), Figure("more times", "501", "", aim, (501.0,)),
        Figure("size", "3 KiB", "", Aim("under 2 KiB", 2), (3,)), Figure("mass", "3 g", "", Aim("under 3 g", 3), (3,)),
    )  # fmt: skip
    written = document([Group("start", "Start", figures)], RUN)
    assert (
        "\nAims that were missed:\n\n- times: missed by a factor of 2.00. There are few cores.\n"
        "- size: missed by a factor of 1.50.\n"
    ) in written
    assert written.count("missed") == 3
