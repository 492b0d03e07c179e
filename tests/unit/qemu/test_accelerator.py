"""The choice between TCG and KVM, and what a /dev/kvm must be to be chosen."""

from pathlib import Path

import pytest

from sidecar.qemu.accelerator import NoKvm, choose_accelerator
from sidecar.qemu.executable import Qemu, QemuTooOld
from sidecar.qemu.kvm import Kvm, examine_kvm, judge

NEW = Qemu(Path("/usr/bin/qemu"), (10, 0, 2))
OLD = Qemu(Path("/usr/bin/qemu"), (7, 2))

X2APIC, VMX, SVM = 1 << 21, 1 << 5, 1 << 2


def works() -> Kvm:
    return Kvm(True, "/dev/kvm offers x2APIC and svm")


def interprets() -> Kvm:
    return Kvm(False, "/dev/kvm interprets kernel code")


def must_not_be_asked() -> Kvm:
    raise AssertionError


def test_auto_takes_a_kvm_that_works() -> None:
    chosen = choose_accelerator("auto", OLD, works)
    assert (chosen.kind, chosen.cpu_model) == ("kvm", "host")
    assert chosen.reason == "/dev/kvm offers x2APIC and svm; KVM is supported but untested"


def test_auto_takes_tcg_otherwise() -> None:
    chosen = choose_accelerator("auto", NEW, interprets)
    assert (chosen.kind, chosen.cpu_model) == ("tcg", "max")
    assert chosen.reason == "TCG, because /dev/kvm interprets kernel code"


def test_tcg_by_name_does_not_look_at_kvm() -> None:
    assert choose_accelerator("tcg", NEW, must_not_be_asked).kind == "tcg"


def test_kvm_by_name() -> None:
    assert choose_accelerator("kvm", OLD, works).kind == "kvm"
    with pytest.raises(
        NoKvm, match=r"^KVM cannot run the sidecar on this host: /dev/kvm interprets .*; use --accel tcg$"
    ):
        choose_accelerator("kvm", NEW, interprets)


@pytest.mark.parametrize("request_", ["auto", "tcg"])
def test_tcg_needs_a_new_qemu(request_: str) -> None:
    with pytest.raises(QemuTooOld):
        choose_accelerator(request_, OLD, interprets)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("ecx_of", "usable", "reason"),
    [
        ({1: X2APIC, 0x8000_0001: SVM}, True, "/dev/kvm offers x2APIC and svm"),
        ({1: X2APIC | VMX, 0x8000_0001: 0}, True, "/dev/kvm offers x2APIC and vmx"),
        ({1: X2APIC, 0x8000_0001: 0}, False, "offers its guests neither svm nor vmx"),
        ({1: VMX}, False, "offers its guests no x2APIC"),
        ({}, False, "offers its guests neither svm nor vmx"),
    ],
)
def test_the_verdict_on_cpuid(ecx_of: dict[int, int], usable: bool, reason: str) -> None:
    verdict = judge(ecx_of)
    assert verdict.usable == usable
    assert reason in verdict.reason


def test_devices_that_are_no_kvm(tmp_path: Path) -> None:
    assert examine_kvm(tmp_path / "kvm") == Kvm(False, f"there is no {tmp_path / 'kvm'}")
    (tmp_path / "kvm").touch()
    assert examine_kvm(tmp_path / "kvm").reason.startswith(f"{tmp_path / 'kvm'} opens, but does not answer as KVM does")
    assert "does not answer as KVM does" in examine_kvm(Path("/dev/null")).reason


def test_this_host_is_examined_without_an_error() -> None:
    assert examine_kvm().reason
