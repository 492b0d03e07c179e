"""Initramfs archives, read back by GNU cpio."""

import subprocess
from pathlib import Path

import pytest

from sidecar.qemu.linux.cpio import Entry, archive, with_directories
from sidecar.qemu.linux.initramfs import packed

ENTRIES = [
    Entry.directory("etc"),
    Entry.file("etc/motd", b"hello\n"),
    Entry.file("init", b"#!/bin/sh\n", executable=True),
    Entry.link("bin", "usr/bin"),
    Entry.character_device("console", 5, 1),
    Entry.directory("tmp", 0o1777),
]


def cpio(data: bytes, *arguments: str, where: Path | None = None) -> str:
    run = subprocess.run(["cpio", "--quiet", *arguments], input=data, capture_output=True, check=True, cwd=where)
    assert run.stderr == b""
    return run.stdout.decode()


@pytest.mark.needs("cpio")
def test_cpio_lists_what_was_packed() -> None:
    listed = [line.split() for line in cpio(archive(ENTRIES), "-itv", "--numeric-uid-gid").splitlines()]
    assert [(line[0], line[2], line[3]) for line in listed] == [
        ("drwxr-xr-x", "0", "0"),
        ("-rw-r--r--", "0", "0"),
        ("-rwxr-xr-x", "0", "0"),
        ("lrwxrwxrwx", "0", "0"),
        ("crw-------", "0", "0"),
        ("drwxrwxrwt", "0", "0"),
    ]
    assert listed[1][4] == "6"
    assert listed[3][-3:] == ["bin", "->", "usr/bin"]
    assert listed[4][4:6] == ["5,", "1"]
    assert [line[-1] for line in (listed[0], listed[1], listed[5])] == ["etc", "etc/motd", "tmp"]


@pytest.mark.needs("cpio")
@pytest.mark.parametrize("size", range(6))
def test_content_and_names_of_any_length_come_back(tmp_path: Path, size: int) -> None:
    names = ["a" * length for length in range(1, 6)]
    data = archive([Entry.file(name, name.encode() * size) for name in names])
    assert len(data) % 4 == 0
    cpio(data, "-i", where=tmp_path)
    content = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert content == {name: name.encode() * size for name in names}


def test_the_same_entries_give_the_same_bytes() -> None:
    assert archive(ENTRIES) == archive(list(ENTRIES))


@pytest.mark.needs("cpio")
def test_archives_can_follow_each_other(tmp_path: Path) -> None:
    first, second = packed([Entry.file("one", b"1")]), packed([Entry.file("two", b"2")])
    assert len(first) % 512 == 0
    cpio(first, "-i", where=tmp_path)
    cpio(second, "-i", where=tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]


def test_directories_come_before_what_is_in_them() -> None:
    given = [Entry.file("usr/lib/x/y", b""), Entry.directory("usr/lib", 0o700), Entry.link("a", "b")]
    entries = with_directories(given)
    assert [(entry.name, oct(entry.mode)) for entry in entries] == [
        ("a", "0o120777"),
        ("usr", "0o40755"),
        ("usr/lib", "0o40700"),
        ("usr/lib/x", "0o40755"),
        ("usr/lib/x/y", "0o100644"),
    ]
