"""`sidecar boot` with Linux as a user calls it: the report, a command's status, a shell on a terminal."""

import json
import os
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

SECONDS = 200
pytestmark = [pytest.mark.timeout(300), pytest.mark.usefixtures("stock_linux")]


def boot(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sidecar", "boot", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)


def test_the_report_of_a_machine_with_the_sidecar() -> None:
    done = boot("--smp", "4", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["mode"], told["fallback"], told["problems"], told["ok"]) == ("sidecar", None, [], True)
    assert [(cpu["linux"], cpu["owner"], cpu["state"], cpu["answered"]) for cpu in told["cpus"]] == [
        (0, "linux", "online", None),
        *((number, "sidecar", "idle", True) for number in (1, 2, 3)),
    ]
    assert [stamp["what"] for stamp in told["timeline"]] == [
        "QEMU start", "shim", "sidecar", "first INIT", "all CPUs idle", "Linux", "user space",
    ]  # fmt: skip
    times = [stamp["seconds"] for stamp in told["timeline"]]
    assert times == sorted(times)


def test_the_report_of_a_baseline() -> None:
    done = boot("--smp", "3", "--baseline", "all")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0].endswith("on 3 CPUs (tcg), baseline all")
    assert done.stdout.count("online") == 3


def test_a_fall_back_is_a_plain_linux() -> None:
    done = boot("--smp", "2", "--append", "sidecar=off quiet", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["fallback"]
    assert [(cpu["owner"], cpu["state"]) for cpu in told["cpus"]] == [("linux", "online")] * 2


def test_exec_streams_and_exits_with_the_status(tmp_path: Path) -> None:
    file = tmp_path / "a-file"
    file.write_text("content\n")
    done = boot("--smp", "2", "--copy-in", str(file), "--append", "word=1", "--exec",
                "cat /root/a-file; cat /proc/cmdline; echo err >&2; exit 7")  # fmt: skip
    assert done.returncode == 7
    assert done.stdout.startswith("content\n")
    assert "word=1" in done.stdout.split()
    assert "maxcpus=1" in done.stdout.split()
    assert "err" in done.stderr.splitlines()


@pytest.mark.parametrize("leave", [b"exit 5\r", b"\x1d"])
def test_a_shell_on_a_terminal(leave: bytes) -> None:
    ours, its = os.openpty()
    command = [sys.executable, "-m", "sidecar", "boot", "--smp", "2", "--shell"]
    process = subprocess.Popen(command, stdin=its, stdout=its, stderr=its, start_new_session=True)
    try:
        read_until(ours, b"sidecar:~# ", SECONDS)
        os.write(ours, b"tty; echo $((6 * 7)); sleep 1000\r")
        assert b"\n/dev/ttyS0\r" in read_until(ours, b"\n42\r", 60)
        os.write(ours, b"\x03")  # Ctrl-C ends the guest's sleep, and nothing of ours
        read_until(ours, b"sidecar:~# ", 60)
        os.write(ours, leave)
        assert process.wait(60) == (5 if leave.startswith(b"exit") else 0)
    finally:
        process.kill()
        process.wait()
        os.close(ours)
        os.close(its)


def read_until(file: int, sought: bytes, seconds: float) -> bytes:
    """What is read from now on, once it has `sought` in it."""
    got = b""
    deadline = time.monotonic() + seconds
    while sought not in got and time.monotonic() < deadline:
        if select.select([file], [], [], 0.2)[0]:
            got += os.read(file, 1 << 16)
    assert sought in got, f"waited {seconds:g} s for {sought!r}, got {got[-800:]!r}"
    return got
