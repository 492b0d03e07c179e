"""Where the sidecar cannot be used or is not wanted: one reason on the console, and a machine that ends well."""

import re
from pathlib import Path

import pytest

from sidecar.qemu.session import FellBack, Session
from sidecar.shim.console import ExitCode

FALL_BACKS = {
    "one CPU": (1, "", (), "the machine has one CPU"),
    "switched off": (4, "sidecar=off", (), "sidecar=off on the command line"),
    "the last word counts": (4, "sidecar=off sidecar=on sidecar=off", (), "sidecar=off on the command line"),
    "no x2APIC": (4, "", ("-cpu", "max,-x2apic"), "the CPUs have no x2APIC"),
    "no topology leaf": (4, "", ("-cpu", "max,level=10"), "the CPUs do not tell their x2APIC id (CPUID leaf 0xB)"),
    "no NX": (4, "", ("-cpu", "max,-nx"), "the CPUs have no no-execute pages"),
    "all CPUs left to Linux": (4, "sidecar.linux_cpus=1-3", (), "no node has a CPU for the sidecar"),
}
"""(CPUs, command line, further QEMU arguments, reason)"""


@pytest.mark.parametrize("name", FALL_BACKS)
def test_the_reason_of_a_fall_back(name: str, run_directory: Path) -> None:
    smp, append, extra, reason = FALL_BACKS[name]
    session = Session(smp=smp, append=append, extra=extra, directory=run_directory)
    with pytest.raises(FellBack, match=r"^the shim did not use the sidecar: ") as caught, session:
        pass
    assert caught.value.reason == reason
    assert caught.value.console.count("not using the sidecar") == 1
    assert "fatal" not in caught.value.console
    assert session.machine.wait_exit(seconds=10) == ExitCode.NOTHING_TO_RUN << 1 | 1


def test_left_to_linux_is_said_too(run_directory: Path) -> None:
    session = Session(smp=4, append="sidecar.linux_cpus=1-3", directory=run_directory)
    with pytest.raises(FellBack) as caught, session:
        pass
    assert re.search("^shim: .*CPUs 0 to 3 stay with Linux", caught.value.console, re.MULTILINE)
