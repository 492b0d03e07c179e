"""What the doctor says, and how."""

import json

import pytest

from sidecar.qemu import doctor
from sidecar.qemu.doctor import Finding
from sidecar.qemu.executable import OVERRIDE

FINDINGS = (Finding("gcc", True, "gcc 12.2.0"), Finding("eu-elflint", False, "not on PATH", "run 'make setup'"))


def test_one_line_per_finding_and_remedy() -> None:
    assert doctor.render(FINDINGS) == (
        "ok       gcc         gcc 12.2.0\nMISSING  eu-elflint  not on PATH\n                     -> run 'make setup'"
    )


def test_json() -> None:
    assert json.loads(doctor.as_json(FINDINGS))[1] == {
        "name": "eu-elflint",
        "ok": False,
        "found": "not on PATH",
        "remedy": "run 'make setup'",
    }


def test_a_host_without_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv(OVERRIDE, raising=False)
    monkeypatch.setattr(doctor, "DISTRIBUTION", "no-such-distribution")
    findings = {finding.name: finding for finding in doctor.examine()}
    missing = {name for name, finding in findings.items() if not finding.ok}
    assert missing >= {"packages", "qemu", "gcc", "as", "readelf", "eu-elflint", "grub-file"}
    assert findings["as"].found == "not on PATH; it judges the machine code in the tests"
    assert findings["packages"].found == "no-such-distribution is not installed"
    assert all(findings[name].remedy for name in missing)


def test_this_host() -> None:
    findings = {finding.name: finding for finding in doctor.examine()}
    assert findings["python"].ok
    assert "keystone-engine 0.9.2" in findings["packages"].found
    assert findings["kvm"].ok
    assert findings["memory"].found.endswith("GiB available")
