"""The driver in which calls that need memory can be made to fail, one at a time (out_of_memory/nth_failure.h)."""

import json
import shutil
from pathlib import Path
from typing import Any

from sidecar.qemu.linux.kernels import LinuxKernel
from sidecar.qemu.linux.module import build_module
from sidecar.qemu.linux_session import LinuxSession
from tests.support.stock_linux import ROOT

FAILING = Path(__file__).resolve().parent / "out_of_memory"
FOLDER = "tests/support/in_guest"
PROGRAM = "out_of_memory"
SECONDS = 900.0


def failing_driver(kernel: LinuxKernel) -> tuple[Path, Path]:
    """nth_failure.ko and the sidecar.ko that needs it."""
    output = ROOT / "build" / f"failing-driver-{kernel.version}"
    source = Path(f"{output}-source")
    shutil.rmtree(source, ignore_errors=True)
    shutil.copytree(ROOT / "driver", source)
    for file in FAILING.glob("nth_failure.*"):
        shutil.copy2(file, source)
    with (source / "Kbuild").open("a") as kbuild:
        kbuild.write((FAILING / "Kbuild").read_text())
    driver = build_module(kernel, source=source, output=output)
    return output / "nth_failure.ko", driver


def failures(session: LinuxSession) -> Any:
    """What in_guest/out_of_memory.py prints; both modules, in /root, are loaded afterwards."""
    session.guest.run(f"insmod /root/nth_failure.ko && mkdir -p /root/{FOLDER}").check()
    for name in PROGRAM, "vm_server":
        session.guest.put(ROOT / FOLDER / f"{name}.py", f"/root/{FOLDER}/{name}.py")
    command = session.guest.start(["python3", "-m", f"{FOLDER.replace('/', '.')}.{PROGRAM}"])
    result = command.wait(SECONDS)
    assert result.status == 0, result.stderr[-2000:]
    return json.loads(result.stdout)
