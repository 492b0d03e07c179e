"""The images are the same byte for byte, whoever builds them, whenever, with whatever seed Python hashes."""

import os
import subprocess
import sys

from sidecar.builder import image
from sidecar.layout import BundleKind

PROGRAM = """
import hashlib
from sidecar.builder import image
from sidecar.layout import BundleKind
kernel, shim = image.kernel().elf, image.shim().elf
for data in (kernel, shim, image.bundle({BundleKind.SIDECAR: kernel})):
    print(hashlib.sha256(data).hexdigest())
"""


def build(seed: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=os.environ | {"PYTHONHASHSEED": seed, "TZ": f"UTC-{seed}"},
        check=True, capture_output=True, text=True, timeout=60,
    ).stdout  # fmt: skip


def test_two_builds_are_equal() -> None:
    first, second = build("1"), build("2")
    assert len(first.splitlines()) == 3
    assert first == second


def test_a_bundle_is_a_function_of_its_parts() -> None:
    parts = {BundleKind.SIDECAR: image.kernel().elf, BundleKind.COMMAND_LINE: b"quiet"}
    assert image.bundle(parts) == image.bundle(dict(parts))
