"""The CPU status table: every status can be entered and left, nothing stands twice."""

from sidecar.layout.control import TRANSITIONS, CpuStatus, Party, allowed


def test_no_row_appears_twice() -> None:
    rows = [(row.old, row.new, row.party) for row in TRANSITIONS]
    assert len(set(rows)) == len(rows)
    assert all(row.old != row.new and row.when for row in TRANSITIONS)


def test_every_status_is_reachable_from_removed_and_leads_back() -> None:
    for forward in (True, False):
        reached = {CpuStatus.REMOVED}
        while grown := {
            (row.new if forward else row.old) for row in TRANSITIONS if (row.old if forward else row.new) in reached
        } - reached:
            reached |= grown
        assert reached == set(CpuStatus)


def test_only_the_store_before_the_first_init_is_not_atomic() -> None:
    stores = [row for row in TRANSITIONS if row.primitive != "cmpxchg"]
    assert [(row.old, row.new, row.party) for row in stores] == [
        (CpuStatus.REMOVED, CpuStatus.RUN, Party.SIDECAR_BSP)
    ]


def test_who_may_do_what() -> None:
    assert allowed(CpuStatus.IDLE, CpuStatus.RUN, Party.DRIVER)
    assert not allowed(CpuStatus.IDLE, CpuStatus.RUN, Party.SIDECAR_CPU)
    assert not allowed(CpuStatus.REMOVED, CpuStatus.IDLE, Party.DRIVER)


def test_a_command_is_finished_by_its_cpu_alone() -> None:
    assert {row.party for row in TRANSITIONS if row.new == CpuStatus.IDLE} == {Party.SIDECAR_CPU}
