"""`sidecar dump vmcb` on a file with a machine's memory."""

import json
from pathlib import Path

import pytest

from sidecar.__main__ import main
from sidecar.layout import PAGE_SIZE, PrivatePage, PrivilegedPage, private_pa
from sidecar.layout.private import VpGlobals
from sidecar.layout.svm import SvmExit, Vmcb, VpPage
from tests.support.synthetic import NODE_PAS, NODES, machine, page
from tests.unit.kernel.test_vmcb_check import VALID

VP_PAGES_PA = 0x180000
MASKS = [0xFFFFFF << 40, 1 << 21, 1 << 14]


def ram(directory: Path, *, masks: list[int] | None = None, **changes: int) -> str:
    """The memory of a machine whose CPU 2 has a virtual processor."""
    memory = machine()
    base, (_, count) = NODE_PAS[0], NODES[0]
    memory.write(private_pa(base, count, 2, PrivatePage.PRIVILEGED), page(
        PrivilegedPage, vp_created=7, vp_pages_pa=VP_PAGES_PA,
    ))
    if masks:
        at = private_pa(base, count, 2, PrivatePage.GLOBALS) + VpGlobals.vp
        memory.write_u64(at, 7)
        for index, mask in enumerate(masks):
            place = private_pa(base, count, 2, PrivatePage.GLOBALS) + VpGlobals.vp.missing_bits + 8 * index
            memory.write_u64(place, mask)
    vmcb = page(Vmcb, **(VALID | {"exit_code": SvmExit.HLT, "rip": 0x1234} | changes))
    memory.write(VP_PAGES_PA + VpPage.VMCB * PAGE_SIZE, vmcb)
    file = directory / "ram"
    file.write_bytes(memory.data)
    return str(file)


def test_a_state_that_hardware_enters(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dump", "vmcb", "--ram", ram(tmp_path, masks=MASKS)]) == 0
    text = capsys.readouterr().out
    at = VP_PAGES_PA + VpPage.VMCB * PAGE_SIZE
    assert text.startswith(f"CPU 2: VMCB at {at:#x}, last exit: hlt\nno rule is broken\n")
    assert "0x1234" in text


def test_broken_rules_are_told_with_value_and_reference(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = ram(tmp_path, masks=MASKS, cr4=0x20 | 1 << 21, asid=0)
    assert main(["dump", "vmcb", "--ram", file, "--cpu", "2"]) == 1
    lines = capsys.readouterr().out.splitlines()[1:3]
    assert lines == [
        "broken: bits of CR4 that this processor lacks are not 0 (0x200020; APM vol. 2, 15.5.1)",
        "broken: the ASID is 0, the host's (0x0; APM vol. 2, 15.5.1)",
    ]


def test_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dump", "vmcb", "--ram", ram(tmp_path, cr3=1 << 60), "--format", "json"]) == 1
    (told,) = json.loads(capsys.readouterr().out)
    assert [one["rule"] for one in told["broken"]] == ["cr3_reserved"]
    assert (told["linux_number"], told["exit"], told["fields"]["cs"]["selector"]) == (2, "hlt", 0)


def test_a_cpu_without_a_virtual_processor(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = ram(tmp_path)
    assert main(["dump", "vmcb", "--ram", file, "--cpu", "1"]) == 2
    assert capsys.readouterr().err == "sidecar: CPU 1 has no virtual processor\n"


def test_a_machine_without_virtual_processors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "ram"
    file.write_bytes(machine().data)
    assert main(["dump", "vmcb", "--ram", str(file)]) == 0
    assert capsys.readouterr().out == "no CPU has a virtual processor\n"
