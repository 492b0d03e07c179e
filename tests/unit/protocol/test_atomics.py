"""The host's atomic operations: values, bounds, and that they are atomic between processes and between threads."""

import mmap
import os
import subprocess
import threading
from pathlib import Path

import pytest

from sidecar.builder import atomics as generator
from sidecar.protocol import atomics_code
from sidecar.protocol.atomics import AtomicU8, AtomicU32, AtomicU64

PROCESSES = 4
ROUNDS = 20_000


def memory() -> memoryview:
    return memoryview(mmap.mmap(-1, 4096))


def test_the_generated_file_is_fresh() -> None:
    assert generator.TARGET.read_text() == generator.render()


@pytest.mark.needs("as", "objcopy")
def test_gnu_as_makes_the_same_bytes(tmp_path: Path) -> None:
    source, object_file, raw = tmp_path / "a.s", tmp_path / "a.o", tmp_path / "a.bin"
    texts = [routine() for routine in generator.ROUTINES]
    source.write_text(".intel_syntax noprefix\n" + "\n".join(texts))
    subprocess.run(["as", "-o", object_file, source], check=True, timeout=60)
    subprocess.run(["objcopy", "-O", "binary", "-j", ".text", object_file, raw], check=True, timeout=60)
    assert raw.read_bytes() == atomics_code.CODE


def test_compare_exchange_of_a_byte() -> None:
    page = memory()
    status = AtomicU8(page, 3)
    assert status.compare_exchange(0, 0x82) == 0
    assert status.compare_exchange(0, 5) == 0x82
    assert status.load() == 0x82
    assert bytes(page[:6]) == b"\0\0\0\x82\0\0"


def test_words() -> None:
    page = memory()
    small, large = AtomicU32(page, 4), AtomicU64(page, 8)
    small.store(2**32 - 1)
    assert small.exchange(7) == 2**32 - 1
    large.store(2**64 - 2)
    assert large.exchange(9) == 2**64 - 2
    assert (small.load(), large.load()) == (7, 9)
    assert bytes(page[:20]) == bytes.fromhex("00000000 07000000 0900000000000000 00000000")


def test_what_cannot_be_atomic_is_refused() -> None:
    page = memory()
    with pytest.raises(ValueError, match="offset 0x3 is not aligned to its 8 bytes"):
        AtomicU64(page, 3)
    with pytest.raises(ValueError, match="small"):
        AtomicU32(page, 4096)
    with pytest.raises(ValueError, match="read-only"):
        AtomicU8(memoryview(bytes(16)), 0)


def test_compare_exchange_between_processes() -> None:
    """Processes count in one byte under contention; the carries, counted apart, show whether an increment was lost."""
    page = memory()
    byte = AtomicU8(page, 0)
    children = []
    for number in range(PROCESSES):
        child = os.fork()
        if child == 0:
            carries = 0
            for _ in range(ROUNDS):
                while True:
                    old = byte.load()
                    if byte.compare_exchange(old, (old + 1) & 0xFF) == old:
                        break
                carries += old == 0xFF
            AtomicU32(page, 64 + 4 * number).store(carries)
            os._exit(0)
        children.append(child)
    assert all(os.waitpid(child, 0)[1] == 0 for child in children)
    carries = sum(AtomicU32(page, 64 + 4 * number).load() for number in range(PROCESSES))
    assert carries * 256 + byte.load() == PROCESSES * ROUNDS


def test_exchange_between_threads_hands_each_value_on_once() -> None:
    page = memory()
    box = AtomicU64(page, 0)
    taken: list[list[int]] = [[], []]

    def take(mine: list[int], first: int) -> None:
        for number in range(first, first + 2 * ROUNDS, 2):
            mine.append(box.exchange(number))

    threads = [threading.Thread(target=take, args=(taken[n], n + 1)) for n in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted([*taken[0], *taken[1], box.load()]) == list(range(2 * ROUNDS + 1))
