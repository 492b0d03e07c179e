"""Stock modules: what is asked for and what that needs, decompressed."""

import lzma
from pathlib import Path

from sidecar.qemu.linux.modules import chosen_modules, dependencies


def module(depends: str) -> bytes:
    return b"\x7fELF\0license=GPL\0depends=" + depends.encode() + b"\0name=x\0"


def test_dependencies() -> None:
    assert dependencies(module("kvm,irqbypass")) == ["kvm", "irqbypass"]
    assert dependencies(module("")) == []
    assert dependencies(b"nothing of the kind") == []


def test_a_module_brings_what_it_needs(tmp_path: Path) -> None:
    kvm = tmp_path / "kernel" / "arch" / "kvm"
    kvm.mkdir(parents=True)
    (kvm / "kvm-amd.ko").write_bytes(module("kvm"))
    (kvm / "kvm.ko.xz").write_bytes(lzma.compress(module("")))
    (kvm / "other.ko").write_bytes(module(""))
    chosen = chosen_modules(tmp_path, ("kvm_amd", "not-there"))
    assert chosen == {
        "kernel/arch/kvm/kvm-amd.ko": module("kvm"),
        "kernel/arch/kvm/kvm.ko": module(""),
    }
