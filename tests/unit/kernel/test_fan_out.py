"""Starting the CPUs, up to the first INIT: one alone, then as many as there are, with help if the params ask for it."""

import pytest

from sidecar.layout import MAX_CPUS, ControlPage, CpuStatus
from sidecar.layout.params import ParamsFlags

from .helpers import PARAMS, TWO_NODES, enter, fresh, write_params


@pytest.mark.parametrize(("flags", "helped"), [(0, 0), (ParamsFlags.ALLOW_RAISE, 0), (ParamsFlags.FAN_OUT, 1)])
def test_the_first_alone_then_all(flags: int, helped: int) -> None:
    kernel = fresh()
    write_params(kernel, flags=flags)
    outcome = enter(kernel)
    assert (outcome.stop, outcome.registers["r10"]) == ("fan_out", 1)
    assert kernel.number("helped_by_each", 4) == 0
    for node in TWO_NODES:
        kernel.write(node.memory_base + int(ControlPage.cpu_status), bytes([CpuStatus.IDLE]) * node.vp_count)
    outcome = kernel.call("start_all", r15=PARAMS)
    assert (outcome.stop, outcome.registers["r10"]) == ("fan_out", MAX_CPUS)
    assert kernel.number("helped_by_each", 4) == helped
