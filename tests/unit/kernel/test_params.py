"""Each check of the params page has its test: the entry returns false with a sentence of value and expectation."""

from typing import Any

import pytest

from sidecar.builder import image
from sidecar.kernel import params
from sidecar.layout import ABI_VERSION, CpuPolicy, abi_hash, required_memory
from sidecar.layout.params import ParamsFlags
from tests.unit.kernel.helpers import (
    BASE,
    NODES,
    TWO_NODES,
    Node,
    accepted,
    cpu,
    cpus_of,
    fresh,
    output,
    refusal,
    write_params,
)

FIELDS: dict[str, tuple[dict[str, Any], str]] = {
    "abi_version": ({"abi_version": 7}, f"abi_version 7, expected {ABI_VERSION}"),
    "abi_hash": ({"abi_hash": abi_hash() ^ 1}, f"abi_hash {abi_hash() ^ 1:#x}, expected {abi_hash():#x}"),
    "hypercall_page": ({"hypercall_page": 0x4000}, "hypercall_page 0x4000, expected 0x0"),
    "initial_state": (
        {"initial_state__per_cpu_state_specified": 1},
        "initial_state.per_cpu_state_specified 1, expected 0: the CPU map says who starts a CPU",
    ),
    "node_count_low": ({"node_count": 0}, "node_count 0, expected at least 1"),
    "node_count": ({"node_count": 129}, "node_count 129, expected at most 128"),
    "cpu_map_count_low": ({"cpu_map_count": 0}, "cpu_map_count 0, expected at least 2"),
    "cpu_map_count": ({"cpu_map_count": 2049}, "cpu_map_count 2049, expected at most 2048"),
    "cpu_map_pa": ({"cpu_map_pa": 0x20002010}, "cpu_map_pa 0x20002010, expected a multiple of 0x1000"),
    "trampoline_low": ({"trampoline_pa": 0}, "trampoline_pa 0x0, expected at least 0x1000"),
    "trampoline_high": ({"trampoline_pa": 0xA0000}, "trampoline_pa 0xa0000, expected at most 0x9f000"),
    "trampoline_align": ({"trampoline_pa": 0x8800}, "trampoline_pa 0x8800, expected a multiple of 0x1000"),
    "tsc_khz": ({"tsc_khz": 0}, "tsc_khz 0, expected at least 1"),
}
"""By the name of the check: what is wrong in the page, and what is said of it."""

PLACES = {
    "image": (0x1_0000_0000 - 0x1000, "the image is loaded at {end:#x}, expected below 0xffffffff"),
    "image_align": (BASE + 0x810, "the image is loaded at {start:#x}, expected a multiple of 0x1000"),
}
"""By the name of the check: where the image lies."""

LINUX_ONLY = [cpu(number, number // 3, CpuPolicy.LINUX) for number in range(5)]
WRONG_NODES: dict[str, tuple[tuple[Node, ...], dict[str, Any], str]] = {
    "memory": (
        (TWO_NODES[0], Node(3, 2, NODES + 0x10_0800)),
        {},
        f"node 1: memory_base {NODES + 0x10_0800:#x}, expected page alignment",
    ),
    "cpus": (
        (TWO_NODES[0], Node(3, 3, NODES + 0x10_0000)),
        {"cpu_map_count": 5},
        "node 1: its CPUs end at 6, the CPU map has 5",
    ),
    "cpus beyond 32 bits": (
        (Node(0xFFFF_FFFF, 3, NODES),),
        {"cpus": LINUX_ONLY},
        f"node 0: its CPUs end at {0xFFFF_FFFF + 3}, the CPU map has 5",
    ),
    "count": ((Node(0, 0, NODES),), {"cpus": LINUX_ONLY}, "node 0: vp_count 0, expected at least 2"),
    "size": (
        (TWO_NODES[0], Node(3, 2, NODES + 0x10_0000, required_memory(2) - 1)),
        {},
        f"node 1: memory_size {required_memory(2) - 1:#x}, expected at least {required_memory(2):#x}",
    ),
    "empty": (TWO_NODES, {"cpus": LINUX_ONLY}, "node 0: 0 CPUs for the sidecar, expected at least 1"),
    "wraps": (
        (TWO_NODES[0], Node(3, 2, NODES + 0x10_0000, -0x1000 & (1 << 64) - 1)),
        {},
        f"node 1: memory_base {NODES + 0x10_0000:#x} and memory_size end at {NODES + 0xF_F000:#x}, "
        "expected no overflow",
    ),
    "overlaps": (
        (TWO_NODES[0], Node(3, 2, NODES + required_memory(3) - 0x1000)),
        {},
        f"node 1: its memory at {NODES + required_memory(3) - 0x1000:#x} overlaps node 0's",
    ),
    "overlaps from below": (
        (Node(0, 3, NODES + 0x10_0000), Node(3, 2, NODES, 0x10_1000)),
        {},
        f"node 1: its memory at {NODES:#x} overlaps node 0's",
    ),
}
"""By the name of the check: the nodes, what else is in the page, and what is said of it."""

ENTRY = cpus_of(TWO_NODES)
WRONG_CPUS: dict[str, tuple[list[bytes], str]] = {
    "node": ([*ENTRY[:4], cpu(4, 0)], "node 1: entry 4 of the CPU map says node 0"),
    "number": ([*ENTRY[:1], cpu(2, 0), *ENTRY[2:]], "node 0: entry 1 of the CPU map says linux_number 2"),
}
"""By the name of the check: the CPU map, and what is said of it."""


def labels(prefix: str) -> set[str]:
    """The kernel's sentences by their labels, without the prefix."""
    return {name.removeprefix(prefix) for name in image.kernel().linked.symbols if name.startswith(prefix)}


def test_each_check_has_its_test() -> None:
    assert {name for name, *_ in params.CHECKS} == FIELDS.keys() | PLACES.keys() == labels("text_params_")
    assert {name.partition(" ")[0] for name in WRONG_NODES} == labels("text_node_")
    assert WRONG_CPUS.keys() == labels("text_cpu_")


@pytest.mark.parametrize("check", FIELDS)
def test_a_wrong_field_is_refused_with_its_value(check: str) -> None:
    changes, sentence = FIELDS[check]
    kernel = fresh()
    write_params(kernel, **changes)
    assert refusal(kernel) == f"sidecar params: {sentence}"


@pytest.mark.parametrize("check", PLACES)
def test_an_image_at_a_wrong_place_is_refused(check: str) -> None:
    base, sentence = PLACES[check]
    kernel = fresh(base)
    write_params(kernel)
    end = base + image.kernel().plan.memory_bytes
    assert refusal(kernel) == "sidecar params: " + sentence.format(start=base, end=end)


@pytest.mark.parametrize("check", WRONG_NODES)
def test_a_wrong_node_is_refused_with_its_number_and_value(check: str) -> None:
    nodes, changes, sentence = WRONG_NODES[check]
    kernel = fresh()
    write_params(kernel, nodes, **changes)
    assert refusal(kernel) == f"sidecar {sentence}"


@pytest.mark.parametrize("check", WRONG_CPUS)
def test_a_cpu_map_that_contradicts_the_nodes_is_refused(check: str) -> None:
    cpus, sentence = WRONG_CPUS[check]
    kernel = fresh()
    write_params(kernel, cpus=cpus)
    assert refusal(kernel) == f"sidecar {sentence}"


def test_one_cpu_cannot_be_in_two_nodes() -> None:
    nodes = (Node(0, 3, NODES), Node(2, 3, NODES + 0x10_0000))
    kernel = fresh()
    write_params(kernel, nodes, cpus_of([Node(0, 3, NODES), Node(3, 2, NODES)]))
    assert refusal(kernel) == "sidecar node 1: entry 2 of the CPU map says node 0"


def test_a_right_page_is_accepted() -> None:
    kernel = fresh()
    write_params(kernel)
    accepted(kernel)
    assert output(kernel).error.length == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"trampoline_pa": 0x1000},
        {"trampoline_pa": 0x9F000},
        {"tsc_khz": 1},
        {"tsc_khz": 0xFFFF_FFFF},
        {"start_timeout_ms": 0},
        {"sdcr_pa": 0},
        {"flags": 0xFFFF_FFFF},
        {"enable_logging": 1, "log_port": 0x3E8},
    ],
)
def test_the_limits_are_accepted(changes: dict[str, Any]) -> None:
    kernel = fresh()
    write_params(kernel, **changes)
    accepted(kernel)


def test_what_is_needed_later_is_kept() -> None:
    """The params page is the shim's: nothing of it is read after the entry has returned."""
    kernel = fresh()
    write_params(kernel, flags=ParamsFlags.ALLOW_RAISE, enable_logging=1, log_port=0x3E8, trampoline_pa=0x8000)
    accepted(kernel)
    kept = ("node_count", "cpu_count", "startup_command", "raise_allowed", "log_port")
    assert [kernel.number(name, 4) for name in kept] == [2, 5, 0x4608, ParamsFlags.ALLOW_RAISE, 0x3E8]


def test_nothing_is_raised_or_logged_unless_asked_for() -> None:
    kernel = fresh()
    write_params(kernel, log_port=0x3E8)
    accepted(kernel)
    assert (kernel.number("raise_allowed", 4), kernel.number("log_port", 4)) == (0, 0)
