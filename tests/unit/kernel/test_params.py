"""Each check of the params page has its test: the entry returns false with a sentence of value and expectation."""

from typing import Any

import pytest

from sidecar.builder import image
from sidecar.layout import ABI_VERSION, PAGE_SIZE, CpuPolicy, SidecarOutput, abi_hash, required_memory
from sidecar.layout.address_map import IMAGE_MAX_BYTES
from sidecar.layout.boot import TRAMPOLINE_MAGIC
from sidecar.layout.params import ParamsFlags
from tests.unit.kernel import helpers
from tests.unit.kernel.helpers import BASE, NODES, TWO_NODES, Node, fresh, refusal, write_params

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
    "cpu_map_count_low": ({"cpu_map_count": 1}, "cpu_map_count 1, expected at least 2"),
    "cpu_map_count": ({"cpu_map_count": 2049}, "cpu_map_count 2049, expected at most 2048"),
    "cpu_map_pa": ({"cpu_map_pa": 0x20002010}, "cpu_map_pa 0x20002010, expected a multiple of 0x1000"),
    "trampoline_low": ({"trampoline_pa": 0}, "trampoline_pa 0x0, expected at least 0x1000"),
    "trampoline_high": ({"trampoline_pa": 0xA0000}, "trampoline_pa 0xa0000, expected at most 0x9f000"),
    "trampoline_align": ({"trampoline_pa": 0x8800}, "trampoline_pa 0x8800, expected a multiple of 0x1000"),
    "tsc_khz": ({"tsc_khz": 0}, "tsc_khz 0, expected at least 1"),
}
"""By the name of the check: what is wrong in the page, and what is said of it."""


@pytest.mark.parametrize("check", FIELDS)
def test_a_wrong_field_is_refused_with_its_value(check: str) -> None:
    changes, sentence = FIELDS[check]
    kernel = fresh()
    write_params(kernel, **changes)
    assert refusal(kernel) == f"sidecar params: {sentence}"


@pytest.mark.parametrize(
    ("base", "sentence"),
    [
        (0x1_0000_0000 - 0x1000, "the image is loaded at {end:#x}, expected below 0xffffffff"),
        (BASE + 0x810, f"the image is loaded at {BASE + 0x810:#x}, expected a multiple of 0x1000"),
    ],
    ids=["image", "image_align"],
)
def test_an_image_at_a_wrong_place_is_refused(base: int, sentence: str) -> None:
    kernel = fresh(base)
    write_params(kernel)
    assert refusal(kernel) == "sidecar params: " + sentence.format(end=base + image.kernel().plan.memory_bytes)


NODES_WRONG: dict[str, tuple[tuple[Node, ...], dict[str, Any], str]] = {
    "memory": (
        (TWO_NODES[0], Node(3, 2, NODES + 0x10_0800)),
        {},
        f"node 1: memory_base {NODES + 0x10_0800:#x}, expected page alignment",
    ),
    "cpus": ((TWO_NODES[0], Node(3, 3, NODES + 0x10_0000)), {"cpu_map_count": 5},
             "node 1: its CPUs end at 6, the CPU map has 5"),
    "count": ((Node(0, 4033, NODES, 1 << 40),), {"cpu_map_count": 2048, "cpus": []},
              "node 0: its CPUs end at 4033, the CPU map has 2048"),
    "size": (
        (TWO_NODES[0], Node(3, 2, NODES + 0x10_0000, required_memory(2) - 1)),
        {},
        f"node 1: memory_size {required_memory(2) - 1:#x}, expected at least {required_memory(2):#x}",
    ),
}  # fmt: skip


@pytest.mark.parametrize("check", NODES_WRONG)
def test_a_wrong_node_is_refused_with_its_number_and_value(check: str) -> None:
    nodes, changes, sentence = NODES_WRONG[check]
    kernel = fresh()
    write_params(kernel, nodes, **changes)
    assert refusal(kernel) == f"sidecar {sentence}"
