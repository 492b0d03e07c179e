"""The program that prints the time-stamp counter, run on this host."""

import platform
import re
import subprocess
from pathlib import Path

import pytest

from sidecar.qemu.linux.stamp import stamp_program

LINE = re.compile(rb"guest: time 0x([0-9a-f]{16})\n")


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the program is for x86-64")
def test_it_prints_a_counter_that_grows(tmp_path: Path) -> None:
    program = tmp_path / "stamp"
    program.write_bytes(stamp_program())
    program.chmod(0o755)
    times = []
    for _ in range(3):
        match = LINE.fullmatch(subprocess.run([program], capture_output=True, check=True, timeout=10).stdout)
        assert match is not None
        times.append(int(match.group(1), 16))
    assert times == sorted(times)
    assert times[0] < times[2]


@pytest.mark.needs("readelf")
def test_no_segment_is_writable_and_executable(tmp_path: Path) -> None:
    program = tmp_path / "stamp"
    program.write_bytes(stamp_program())
    headers = subprocess.run(["readelf", "-lW", program], capture_output=True, text=True, check=True).stdout
    assert re.search(r"LOAD .* R E ", headers)
    assert not re.search(r"LOAD .* RWE ", headers)
