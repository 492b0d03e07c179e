"""The example of docs/vmm.md runs as it stands; the client that it opens commands from the host."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import pytest

from sidecar.client import Sidecar
from sidecar.client.pages import PagesAttachment
from sidecar.client.vmm.backing import VmBacking
from sidecar.client.vmm.pages_backing import PagesVm
from sidecar.qemu.hosted_vp import FreeRam
from sidecar.qemu.session import Session

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "vmm.md"


class HostAttachment(PagesAttachment):
    """The host's, with guests."""

    def __init__(self, session: Session) -> None:
        super().__init__(session.driver, session.found)
        self._session = session

    def virtual_machine(self) -> VmBacking:
        session = self._session
        return PagesVm(session.driver, session.machine.ram, FreeRam(session).take, tsc_khz=session.found.tsc_khz)


def test_the_example_of_the_guide(run_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(example.splitlines()) <= 22
    with Session(smp=2, directory=run_directory) as session:
        monkeypatch.setattr(Sidecar, "open", lambda: Sidecar(HostAttachment(session)))
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(compile(example, str(GUIDE), "exec"), {})
    assert out.getvalue() == "hi 43\n"
