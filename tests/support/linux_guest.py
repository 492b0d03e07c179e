"""A stock kernel without the sidecar: what the guest's programs and modules need of it."""

from pathlib import Path

from sidecar.qemu.linux.kernels import Which
from sidecar.qemu.linux_session import LinuxSession
from tests.support.stock_linux import StockLinux, hello_module

IMPORTS = "asyncio, ctypes, mmap, struct, sys, construct, sidecar.client, sidecar.layout, sidecar.protocol"


def plain(stock_linux: StockLinux, which: Which, directory: Path) -> LinuxSession:
    """A machine of two CPUs to be booted by `with`; Linux starts one, a small module is at hand, and /root/tool.sh."""
    kernel = stock_linux.kernels[which]
    tool = directory / "tool.sh"
    tool.write_text("#!/bin/sh\necho copied in\n")
    tool.chmod(0o755)
    driver = hello_module(kernel, directory / "module")
    return LinuxSession(kernel=kernel, smp=2, baseline="one", driver=driver, copy_in=[tool], directory=directory)


def check_kernel(session: LinuxSession) -> None:
    """The kernel that was asked for, one CPU, x2APIC mode, which the driver needs; Python and what the client needs."""
    assert session.guest.run("uname -r").stdout.strip() == session.kernel.version
    assert f"Linux version {session.kernel.version}" in session.console
    assert session.online_cpus() == {0}
    assert session.guest.read("/sys/devices/system/cpu/present").strip() == b"0-1"
    assert session.found is None
    assert session.fallback is None
    assert "Enabled IRQ remapping in x2apic mode" in session.guest.log()
    result = session.guest.run(["python3", "-c", f"import {IMPORTS}; print(sys.version)"], timeout=120)
    assert result.stdout.startswith("3."), result.stderr


def check_modules(session: LinuxSession) -> None:
    """Stock ones, compressed or not, and one that was built against the headers."""
    for module in ("msr", "kvm_amd"):
        session.guest.run(["modprobe", module]).check()
        assert module in [line.split()[0] for line in session.guest.read("/proc/modules").decode().splitlines()]
    session.load_driver()
    session.guest.run(["rmmod", "hello"]).check()
    assert "hello: here" in session.guest.log()
    assert "hello: gone" in session.guest.log()
