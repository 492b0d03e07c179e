"""The last boots' times: kept by machine and mode, forgotten in order, and no trouble when the file is."""

from pathlib import Path

from sidecar.qemu.linux import boot_times
from sidecar.qemu.linux.boot_times import BootTimes


def test_the_last_time_of_each_mode(tmp_path: Path) -> None:
    times = BootTimes(tmp_path)
    assert times.of("one") == {}
    times.note("one", "sidecar", 4.5)
    times.note("one", "baseline all", 121.23456)
    times.note("two", "sidecar", 9)
    times.note("one", "sidecar", 4.25)
    assert BootTimes(tmp_path).of("one") == {"baseline all": 121.235, "sidecar": 4.25}


def test_the_machine_that_was_booted_longest_ago_is_forgotten(tmp_path: Path) -> None:
    times = BootTimes(tmp_path)
    for number in range(boot_times.MOST_MACHINES):
        times.note(str(number), "sidecar", 1)
    times.note("0", "sidecar", 2)
    times.note("new", "sidecar", 3)
    assert (times.of("0"), times.of("1"), times.of("2")) == ({"sidecar": 2}, {}, {"sidecar": 1})


def test_a_file_that_somebody_has_broken(tmp_path: Path) -> None:
    for content in ("", "[]", '{"one": 3}', '{"one": {"sidecar": null}}'):
        (tmp_path / "boot-times.json").write_text(content)
        times = BootTimes(tmp_path)
        assert times.of("one") == {}
        times.note("one", "sidecar", 1)
        assert times.of("one") == {"sidecar": 1}
