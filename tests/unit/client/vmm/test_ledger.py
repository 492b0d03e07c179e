"""What a ledger of exits holds, and its summary."""

from __future__ import annotations

import io

import pytest

from sidecar.client.vmm.ledger import Ledger, summarize
from sidecar.errors import UserError
from tests.support.vmm_cpu import halt, port
from tests.support.vmm_scripts import machine_of


def test_a_ledger_and_its_summary() -> None:
    file = io.StringIO()
    ledger = Ledger(file, tsc_khz=1_000_000)
    machine, _ = machine_of([port(0x3F8), port(0x3F8), port(0x60, write=False), halt()], ledger=ledger)
    machine.run(seconds=60)
    text = file.getvalue()
    assert len(text.splitlines()) == 5
    summary = summarize(text.splitlines(keepends=True))
    assert (summary.exits, summary.entries) == (4, 4)
    found = summary.as_dict()["rows"]
    assert [(row["reason"], row["detail"], row["count"]) for row in found] == [
        ("port", "out 0x3f8 1", 2), ("port", "in 0x60 1", 1), ("halt", "", 1),
    ]  # fmt: skip
    assert (found[0]["sidecar_us"], found[0]["guest_us"], found[0]["rips"]) == (4.0, 0.0, {"0x1000": 2})
    assert found[0]["vmm_us"] > 0
    assert summarize((text + '{"vp": 0, "rea').splitlines(keepends=True)).exits == 4


@pytest.mark.parametrize("text", ["", "{}\n", "hello\n", '{"format": "sidecar exits 1"}\nhello\n'])
def test_what_is_no_ledger(text: str) -> None:
    with pytest.raises(UserError, match="this is no ledger of exits"):
        summarize(text.splitlines(keepends=True))
