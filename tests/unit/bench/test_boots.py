"""Boots that are measured once and used by several measurements; plans, rows and budgets, with made-up boots."""

import math

import pytest

from sidecar.bench import boot, break_even, context
from sidecar.bench.boots import Boot, Boots, Mode, free_in, with_linux_times
from sidecar.bench.compare import ratio
from sidecar.bench.context import Budget, Context
from sidecar.cli.bench import sizes
from sidecar.errors import UserError
from sidecar.qemu.linux.agent_client import GuestError
from sidecar.qemu.linux.kernels import LinuxKernel, Which

LOG = """\
[    0.412345] smp: Bringing up secondary CPUs ...
[    0.412999] x86: Booting SMP configuration:
[   10.912345] smp: Brought up 1 node, 64 CPUs
"""


class MadeUp(Boots):
    """Boots that take as long as a table says; None is longer than any bound."""

    def __init__(self, seconds: dict[Mode, float | None]) -> None:
        super().__init__(lambda line: None, boot=self.boot)
        self.order: list[tuple[str, int, Mode]] = []
        self.seconds_of = seconds

    def kernel(self, which: Which) -> LinuxKernel:
        return LinuxKernel(version=which, image=None)  # type: ignore[arg-type]

    def boot(self, kernel: LinuxKernel, smp: int, mode: Mode, *, bound: float) -> Boot:
        self.order.append((kernel.version, smp, mode))
        return Boot(kernel=kernel.version, smp=smp, mode=mode, bound=bound, seconds=self.seconds_of[mode])


def made_up(boots: MadeUp, *, sizes: tuple[int, ...], budget: Budget | None = None) -> Context:
    return Context(boots, budget or Budget(None), lambda line: None, sizes=sizes, chosen=True)


def test_every_size_is_booted_in_all_ways_before_any_is_booted_again() -> None:
    boots = MadeUp({"sidecar": 4.0, "one": 4.0, "all": 9.0})
    group = boot.measure(made_up(boots, sizes=(2, 64)))
    first = [(smp, mode) for _, smp, mode in boots.order[:12]]
    assert first == [(smp, mode) for smp in (2, 64) for _ in range(2) for mode in ("sidecar", "one", "all")]
    assert [smp for _, smp, _ in boots.order[12:]] == [2] * 12
    assert [table.title for table in group.tables] == ["Linux stable", "Linux backports"]
    assert group.tables[0].rows[0] == ("2", "4.0 s (4.0 to 4.0)", "4.0 s (4.0 to 4.0)", "9.0 s (9.0 to 9.0)", "2.2")
    assert group.tables[0].rows[1] == ("64", "4.0 s", "4.0 s", "9.0 s", "2.2")


def test_a_boot_that_is_too_slow_is_told_with_its_bound() -> None:
    group = boot.measure(made_up(MadeUp({"sidecar": 4.0, "one": 4.0, "all": None}), sizes=(255,)))
    assert group.tables[0].rows == (("255", "4.0 s", "4.0 s", "more than 120 s", ""),)
    point = boot.chart("", {255: {"sidecar": [], "one": [], "all": [_slow()]}}).series[0].points[0]
    assert (point.y, point.bounded) == (120.0, True)


def _slow() -> Boot:
    return Boot(kernel="x", smp=255, mode="all", bound=120.0)


def test_without_time_nothing_is_booted_and_that_is_told() -> None:
    boots = MadeUp({"sidecar": 4.0, "one": 4.0, "all": 9.0})
    used = made_up(boots, sizes=(2,), budget=Budget(10.0))
    assert boot.measure(used).tables == ()
    assert boots.order == []
    assert "a boot of the stable kernel with 2 CPUs, maxcpus=1" in used.left_out


def test_boots_are_shared() -> None:
    boots = MadeUp({"sidecar": 4.0, "one": 4.0, "all": 9.0})
    assert boots.some("stable", 8, "one", count=2) == boots.of("stable", 8, "one")
    boots.some("stable", 8, "one")
    assert len(boots.order) == 2


def test_linuxs_own_start_of_its_cpus() -> None:
    seen = with_linux_times(_slow(), LOG)
    assert seen.bring_up_ms == pytest.approx(10500.0)
    assert seen.online == 64
    assert with_linux_times(_slow(), LOG.rpartition("\n[")[0]) == _slow()


def test_free_memory_has_in_it_what_cpus_keep() -> None:
    zones = "Node 0, zone DMA32\n  pagesets\n    cpu: 0\n              count: 100\n              high:  378\n"
    zones += "    cpu: 1\n              count: 20\n"
    assert free_in("MemTotal: 9 kB\nMemFree:      1000 kB\n", zones) == 1000 + 120 * 4
    with pytest.raises(GuestError, match="no line MemFree"):
        free_in("", zones)


def test_what_is_held_back_is_not_spent() -> None:
    budget = Budget(100.0)
    budget.hold(60.0)
    assert 39 < budget.left() <= 40
    assert not budget.allows(41)
    assert math.isinf(Budget(None).left())


def test_the_ratio_of_two_medians_and_its_interval() -> None:
    ours, theirs = [10.0, 10.2, 9.9, 10.1, 10.0, 30.0], [10.0, 10.1, 9.8, 10.0, 10.2, 9.9]
    found = ratio(ours, theirs)
    assert found.low < found.value < found.high
    assert found.value == pytest.approx(1.005)
    assert found.low > 0.95
    assert found == ratio(ours, theirs)
    assert ratio([2.0] * 4, [1.0] * 4).interval == "2.000 to 2.000 (95 %)"


def test_sizes_of_the_command_line() -> None:
    assert sizes("64,2,4,2") == (2, 4, 64)
    for text in ("", "1,2", "two"):
        with pytest.raises(UserError, match="is not a list of numbers of CPUs of at least 2"):
            sizes(text)


def test_a_picture_is_kept_only_if_there_is_a_place_for_it() -> None:
    used = made_up(MadeUp({"sidecar": 1.0, "one": 1.0, "all": 1.0}), sizes=(2,))
    assert used.draw("a.svg", "<svg/>") == ()
    assert used.sizes_of((4, 16)) == (2,)
    assert context.SIZES[-1] == 255


@pytest.mark.parametrize(
    ("saved", "expected"),
    [
        ([-1.0, 1.0, 5.0], 2 * math.sqrt(2)),
        ([1.0, 2.0, 3.0], 2.0),
        ([-1.0, -1.0, 1.0], 4 * math.sqrt(2)),
        ([1.0, -1.0, 1.0], 4 * math.sqrt(2)),
        ([1.0, 1.0, -1.0], math.inf),
    ],
)
def test_the_size_from_which_on_it_pays(saved: list[float], expected: float) -> None:
    assert break_even.crossing([2, 4, 8], saved) == pytest.approx(expected)


def test_break_even_from_boots() -> None:
    boots = MadeUp({"sidecar": 4.0, "one": 4.0, "all": 9.0})
    used = made_up(boots, sizes=(2, 8))
    used.known |= {"convert_ms stable": 1000.0, "convert_ms backports": 100.0}
    group = break_even.measure(used)
    assert [figure.value for figure in group.figures] == ["2 CPUs", "2 CPUs"]
    assert group.tables[0].rows == (("2", "+5.0 s", "1 of 1", ""), ("8", "+5.0 s", "5 of 7", ""))
    assert group.tables[1].rows[1][2] == "7 of 7"
    assert break_even.describe(math.inf, [2, 8]) == "nowhere up to 8 CPUs"
