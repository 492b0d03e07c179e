"""The report of a boot: what it prints, what its JSON has, and when it counts as a success."""

from sidecar.qemu.boot_report import BootReport, CpuReport, NodeReport, render

NODE = NodeReport(
    node=0, base_cpu=0, cpu_count=3, numa=0, memory_numa=1, memory_bytes=0x25000, control_pa=0x7F000000
)  # fmt: skip
TIMES = {"sidecar_cpus": 2, "answered": 2, "missing": 0, "start_us": 1804.2, "none_us": 71.5}


def cpu(number: int, *, state: str = "idle", answered: bool = True, error: str | None = None) -> CpuReport:
    return CpuReport(
        linux=number, apic_id=2 * number, node=0, index=number, numa=0, state=state,
        boot_us=None if state == "linux" else 150.4, answered=answered, error=error,
    )  # fmt: skip


def booted(*cpus: CpuReport, **times: float) -> BootReport:
    return BootReport(smp=3, accelerator="tcg", nodes=[NODE], cpus=list(cpus), boot=TIMES | times)


def test_a_good_boot() -> None:
    good = booted(cpu(0, state="linux", answered=False), cpu(1), cpu(2))
    assert good.ok
    assert render(good).splitlines() == [
        "node 0: CPUs 0-2, NUMA node 0, 148 KiB of memory at 0x7f000000 on NUMA node 1",
        "CPU  APIC  node  index  NUMA  state  boot us  answered",
        "  0     0     0      0     0  linux        -         -",
        "  1     2     0      1     0   idle      150       yes",
        "  2     4     0      2     0   idle      150       yes",
        "2 of 2 sidecar CPUs answered NONE, 71.5 us each",
        "first INIT to last CPU idle: 1.804 ms (tcg)",
    ]


def test_a_cpu_that_does_not_answer() -> None:
    bad = booted(cpu(1), cpu(2, state="faulted", answered=False, error="CPU 2 faulted: #PF"), answered=1)
    assert not bad.ok
    lines = render(bad).splitlines()
    assert lines[3].split()[-3:] == ["faulted", "150", "no"]
    assert lines[4] == "CPU 2 faulted: #PF"


def test_a_missing_cpu_is_no_success() -> None:
    bad = booted(cpu(1), cpu(2), missing=1)
    assert not bad.ok
    assert "1 CPUs did not start" in render(bad)


def test_json_has_an_object_per_cpu() -> None:
    data = booted(cpu(1)).as_dict()
    assert set(data) == {"smp", "accelerator", "nodes", "cpus", "boot", "fallback", "notes"}
    assert data["fallback"] is None
    assert {"linux", "apic_id", "node", "index", "numa", "state", "boot_us", "answered"} <= set(data["cpus"][0])


def test_a_fall_back_is_a_success_without_cpus() -> None:
    report = BootReport(smp=1, accelerator="tcg", fallback="the machine has one CPU")
    assert report.ok
    assert report.as_dict()["cpus"] == []
    assert render(report) == "the shim did not use the sidecar: the machine has one CPU"
