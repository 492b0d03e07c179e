"""A driver that gets no memory: each call that needs some fails once; nothing is lost, every CPU stays usable."""

from collections.abc import Iterator

import pytest

from sidecar.qemu.linux.kernels import WHICH
from sidecar.qemu.linux_session import LinuxSession
from tests.support import linux_memory
from tests.support.booted import fresh_directory
from tests.support.kernel_log import KernelLog
from tests.support.linux_client import ctl
from tests.support.linux_driver import states, switch, wait_settled
from tests.support.linux_vmm import pins
from tests.support.stock_linux import StockLinux

SMP, NODES = 4, 2
SAID = "sidecar: not loaded: there is not enough memory"

GET_THROUGH = {"touch", "first online", "first offline"}
"""Linux touches again; the interrupt stays on its CPU, or Linux itself moves it."""

NEED_NOTHING = {"CLAIM", "RUN", "RESTART", "VP_DESTROY", "online", "offline", "unload"}

FAILED = {
    "load": [
        "kstrdup", "alloc_pages_exact", "acpi_get_table", "kmemdup", "kcalloc",
        *["kzalloc", "dev_set_name", "kcalloc", "request_mem_region", "memremap"] * NODES,
        "alloc_chrdev_region", "class_register", *["irq_domain_alloc_irqs", "request_irq"] * NODES,
        *["cpuhp_setup_state"] * 2, *["cdev_device_add", *["kobject_init_and_add"] * (SMP // NODES)] * NODES,
    ],
    "open": ["kzalloc"],
    "touch": ["vmf_insert_pfn"],
    "VM_CREATE": ["kzalloc", "get_zeroed_page", "anon_inode_getfd"],
    "MAP": ["kzalloc", "__get_free_page", "pin_user_pages_fast", *["get_zeroed_page"] * 3, "pin_user_pages_fast",
            *["get_zeroed_page"] * 2],
    "MAP large": ["kzalloc", "__get_free_page", "pin_user_pages_fast", *["get_zeroed_page"] * 2],
    "VP_CREATE": ["kzalloc", "alloc_pages_exact"],
    "DOORBELL_FD": ["kzalloc"],
    "first online": ["irq_domain_alloc_irqs", "request_irq"],
    "first offline": ["irq_domain_alloc_irqs", "request_irq"],
}  # fmt: skip


@pytest.fixture(scope="module", params=WHICH)
def session(stock_linux: StockLinux, request: pytest.FixtureRequest) -> Iterator[LinuxSession]:
    kernel = stock_linux.kernels[request.param]
    with LinuxSession(
        kernel=kernel, smp=SMP, numa=NODES, copy_in=linux_memory.failing_driver(kernel), append="sidecar.tests",
        directory=fresh_directory(request, request.param),
    ) as booted:  # fmt: skip
        yield booted


def wanted(step: str, failed: str) -> int | str:
    if not failed or step in GET_THROUGH:
        return 0
    return "EBUSY" if failed == "request_mem_region" else "ENOMEM"


@pytest.mark.timeout(1200)
def test_every_call_that_needs_memory_fails_once(session: LinuxSession) -> None:
    log, before = KernelLog(session), pins(session)
    lines = linux_memory.failures(session)
    failed: dict[str, list[str]] = {}
    for line in lines:
        assert line == {
            "step": line["step"], "failed": line["failed"], "result": wanted(line["step"], line["failed"]),
            "undone": 0, "lost": 0, "left": [],
        }  # fmt: skip
        failed.setdefault(line["step"], []).append(line["failed"])
    assert failed == {step: [*FAILED.get(step, []), ""] for step in FAILED.keys() | NEED_NOTHING}
    assert log.text.count(SAID) == len(FAILED["load"]) - FAILED["load"].count("request_mem_region")
    assert pins(session) == before
    wait_settled(session)
    assert ctl(session, "ping").status == 0
    for cpu in (1, 3):
        switch(session, cpu, True)
        switch(session, cpu, False)
    assert set(states(session).values()) == {"removed", "available"}
    assert ctl(session, "ping").status == 0
    assert log.complaints() == []
