"""The timeline and the report of a boot with Linux, from what was discovered to text."""

from dataclasses import replace
from typing import Any

import pytest

from sidecar.protocol.machine import Discovered
from sidecar.qemu.linux import timeline
from sidecar.qemu.linux.timeline import Stamp
from sidecar.qemu.linux_report import LinuxCpuReport, LinuxReport, render
from sidecar.qemu.linux_session import cpu_list, default_memory_bytes
from sidecar.qemu.sizes import MIB

FOUND = Discovered(
    sdcr_pa=0, trampoline_pa=0, image_pa=0, image_bytes=0, relay_pa=0, tsc_khz=1_000_000, missing_count=0,
    shim_entry_tsc=400_000_000, sidecar_entry_tsc=410_000_000, first_init_tsc=411_000_000, all_idle_tsc=0,
    hand_over_tsc=415_000_000, nodes=(), cpus=(),
)  # fmt: skip


def cpu(**fields: Any) -> LinuxCpuReport:
    usual = LinuxCpuReport(linux=0, apic_id=0, node=0, index=0, numa=0, owner="linux", state="online")
    return replace(usual, **fields)


def test_stamps_of_the_guest_are_tied_to_the_hosts_clock() -> None:
    stamps = timeline.timeline(FOUND, "", user_space=2.5, tsc=2_400_000_000)
    assert [(stamp.what, round(stamp.seconds, 6)) for stamp in stamps] == [
        ("QEMU start", 0),
        ("shim", 0.5),
        ("sidecar", 0.51),
        ("first INIT", 0.511),
        ("Linux", 0.515),
        ("user space", 2.5),
    ]


def test_without_a_sidecar_the_kernels_clock_is_all_there_is() -> None:
    console = "[    2.179419] Run /init as init process\r\nguest: time 0x1\r\n"
    assert timeline.timeline(None, console, user_space=2.5, tsc=1)[1:] == (
        Stamp("Linux", 2.5 - 2.179419),
        Stamp("user space", 2.5),
    )
    assert len(timeline.timeline(replace(FOUND, tsc_khz=0), "", user_space=2.5, tsc=1)) == 2


def test_the_timeline_as_text() -> None:
    assert timeline.render((Stamp("QEMU start", 0), Stamp("shim", 0.4512), Stamp("user space", 2))) == (
        "       0.0 ms  +0.0        QEMU start\n"
        "     451.2 ms  +451.2      shim\n"
        "    2000.0 ms  +1548.8     user space"
    )


def test_the_report_as_text() -> None:
    boot = LinuxReport(
        smp=2, accelerator="tcg", kernel="6.1.0", mode="sidecar", backing="driver", user_space_seconds=4.934,
        earlier={"baseline one": 4.8, "baseline all": 121.04},
        cpus=[
            cpu(),
            cpu(linux=1, apic_id=1, index=1, owner="sidecar", state="idle", answered=True, microseconds=41.7),
            cpu(linux=2, apic_id=2, index=2, owner="sidecar", state="faulted", answered=False, error="no answer"),
        ],
        notes=["a note"], problems=["a problem"],
    )  # fmt: skip
    assert render(boot).splitlines() == [
        "Linux 6.1.0 on 2 CPUs (tcg) beside the sidecar, commanded through its driver",
        "CPU  APIC  node  index  NUMA  owner    state    answered  us",
        "  0     0     0      0     0  linux    online          -   -",
        "  1     1     0      1     0  sidecar  idle          yes  42",
        "  2     2     0      2     0  sidecar  faulted        no   -",
        "CPU 2: no answer",
        "note: a note",
        "problem: a problem",
        "1 of 2 sidecar CPUs answered NONE from the guest",
        "QEMU start to user space: 4.93 s; when last booted on this host: 4.80 s with maxcpus=1 (--baseline one), "
        "121.04 s with all CPUs (--baseline all)",
    ]
    assert not boot.ok
    assert boot.as_dict()["ok"] is False


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"mode": "sidecar", "fallback": "the machine has one CPU"}, "without the sidecar"),
        ({"mode": "baseline all"}, "without the sidecar: baseline all"),
        ({"mode": "sidecar", "backing": "no-module"},
         "beside the sidecar, commanded without a driver, by /dev/mem and the module msr"),
        ({"mode": "sidecar"}, "beside the sidecar"),
    ],
)
def test_the_first_line(fields: dict[str, Any], words: str) -> None:
    boot = LinuxReport(smp=2, accelerator="tcg", kernel="6.1.0", **fields)
    assert render(boot).splitlines()[0] == f"Linux 6.1.0 on 2 CPUs (tcg) {words}"


def test_what_is_well() -> None:
    boot = LinuxReport(smp=1, accelerator="tcg", kernel="6.1.0", mode="baseline one", cpus=[cpu()])
    assert boot.ok
    assert not replace(boot, problems=["the driver does not load"]).ok
    silent = cpu(owner="sidecar", answered=None)
    assert not replace(boot, cpus=[silent]).ok


def test_lists_of_cpus() -> None:
    assert cpu_list("0,2-4,7\n") == {0, 2, 3, 4, 7}
    assert cpu_list("\n") == set()


def test_memory_divides_among_the_nodes() -> None:
    assert default_memory_bytes(64) == 1088 * MIB
    assert default_memory_bytes(40, 3) % (3 * 2 * MIB) == 0
