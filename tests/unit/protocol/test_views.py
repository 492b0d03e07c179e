"""Pages as objects: values, hex, assignments, and what changed between two moments."""

import mmap

import pytest

from sidecar.layout import CommandPage, ControlPage, CpuStatus, DiagnosticPage, SidecarCommand
from sidecar.protocol.views import Change, View, diff


def view_of(layout: object = CommandPage) -> View:
    assert layout in (CommandPage, ControlPage, DiagnosticPage)
    pages = {id(CommandPage): CommandPage, id(ControlPage): ControlPage, id(DiagnosticPage): DiagnosticPage}
    return View(pages[id(layout)], memoryview(mmap.mmap(-1, 4096)))


def test_integers_are_read_written_and_shown_in_hex() -> None:
    memory = memoryview(bytearray(4096))
    page = View(ControlPage, memory)
    page.response_vector = 0xF7
    assert bytes(memory[0x14:0x18]) == b"\xf7\0\0\0"
    assert repr(page.response_vector) == str(page.response_vector) == "0xf7"
    assert "\n  response_vector = 0xf7\n" in repr(page)


def test_enumerations_have_names_and_unknown_values_are_numbers() -> None:
    page = view_of()
    page.command = SidecarCommand.RAISE
    assert page.command is SidecarCommand.RAISE
    page.command = 0x999
    assert repr(page.command) == "0x999"


def test_arrays_and_nested_fields() -> None:
    page = view_of(ControlPage)
    page.cpu_status[3] = CpuStatus.RUN
    assert (page.cpu_status[3], page.cpu_status[-1], len(page.cpu_status)) == (2, 0, 4032)
    assert "cpu_status = {3: 0x2} of 4032" in repr(page)
    with pytest.raises(IndexError, match="cpu_status has 4032 items, there is no number 4032"):
        page.cpu_status[4032] = 0
    command = view_of()
    command.cpu_context.gps = range(16)
    assert command.cpu_context.gps[15] == 15


def test_mistakes_are_refused() -> None:
    page = view_of()
    with pytest.raises(AttributeError, match="CommandPage has no field 'comand'; it has command, "):
        page.comand = 1
    with pytest.raises(ValueError, match="has_error is a u8, 256 does not fit"):
        page.has_error = 256
    with pytest.raises(ValueError, match="request_data has 0x400 bytes, got 0x1"):
        page.request_data = b"x"
    with pytest.raises(ValueError, match="gps has 16 items, got 2"):
        page.cpu_context.gps = [1, 2]
    with pytest.raises(ValueError, match="CommandPage has 0x1000 bytes, the memory 0x10"):
        View(CommandPage, memoryview(bytearray(16)))


def test_diff_names_what_changed() -> None:
    page = view_of()
    before = page.snapshot()
    assert diff(before, page.snapshot()) == []
    page.command = 2
    page.cpu_context.gps[4] = 7
    page.request_data = b"ab\0d" + bytes(1020)
    page.sequence = 0x10
    changes = diff(before, page.snapshot())
    assert changes == [
        Change("command", SidecarCommand.NONE, SidecarCommand.GET_VP_REGISTERS),
        Change("cpu_context.gps[4]", 0, 7),
        Change("request_data[0x0:0x2]", b"\0\0", b"ab"),
        Change("request_data[0x3:0x4]", b"\0", b"d"),
        Change("sequence", 0, 0x10),
    ]
    assert str(changes[-1]) == "Change(name='sequence', old=0x0, new=0x10)"


def test_diff_of_different_pages_is_refused() -> None:
    with pytest.raises(ValueError, match="a CommandPage cannot be compared with a ControlPage"):
        diff(view_of().snapshot(), view_of(ControlPage).snapshot())


def test_a_snapshot_stays_and_is_read_only() -> None:
    page = view_of(DiagnosticPage)
    before = page.snapshot()
    page.boot.arrivals = 5
    assert (before.boot.arrivals, page.boot.arrivals) == (0, 5)
    with pytest.raises(TypeError):
        before.boot = page.boot
