"""The sidecar costs Linux's boot next to nothing: 64 CPUs, against the same kernel that starts one of them."""

import statistics

import pytest

from sidecar.bench.boots import Boots
from sidecar.bench.figures import host
from sidecar.qemu.linux.kernels import WHICH, Which

SMP = 64
ROUNDS = 5
AIM = 1.1
ALL_SECONDS = 240.0


@pytest.mark.usefixtures("stock_linux")
@pytest.mark.parametrize("which", WHICH)
def test_user_space_is_reached_as_soon_as_with_one_cpu(which: Which, capsys: pytest.CaptureFixture[str]) -> None:
    """QEMU's start to user space, medians of five boots in turn. Beside other work the figures say little."""
    boots = Boots(lambda line: None)
    for _ in range(ROUNDS):
        boots.measure(which, SMP, "sidecar", bound=ALL_SECONDS)
        boots.measure(which, SMP, "one", bound=ALL_SECONDS)
    alone = boots.measure(which, SMP, "all", bound=ALL_SECONDS)
    sidecar, one = boots.seconds(which, SMP, "sidecar"), boots.seconds(which, SMP, "one")
    ratio = statistics.median(sidecar) / statistics.median(one)
    with capsys.disabled():
        print(f"\n{host()}\nLinux {alone.kernel}, {SMP} CPUs, seconds from QEMU's start to user space")
        for name, seconds in (("beside the sidecar", sidecar), ("with maxcpus=1", one)):
            print(f"  {name}: {statistics.median(seconds):.2f} ({', '.join(f'{each:.2f}' for each in seconds)})")
        all_cpus = f"not within {ALL_SECONDS:g}" if alone.seconds is None else f"{alone.seconds:.2f}"
        print(f"  all CPUs started by Linux: {all_cpus} (one boot)\n  sidecar to maxcpus=1: {ratio:.3f}")
    assert len(sidecar) == len(one) == ROUNDS
    assert all(boot.sidecar_cpus == SMP - 2 for boot in boots.of(which, SMP, "sidecar"))
    assert ratio <= AIM
