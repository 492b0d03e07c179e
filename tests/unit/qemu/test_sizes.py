"""Memory sizes as people write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.qemu.sizes import GIB, KIB, MIB, BadSize, format_size, parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4096", 4096),
        ("4k", 4 * KIB),
        ("512M", 512 * MIB),
        (" 512 MiB ", 512 * MIB),
        ("2G", 2 * GIB),
        ("1.5G", 1536 * MIB),
        ("2gb", 2 * GIB),
        ("1T", 1024 * GIB),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "M", "-1M", "12X", "1,5G", "0x100", "1e9", "512 M B"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(BadSize) as caught:
        parse_size(text)
    assert str(caught.value) == f"'{text}' is not a memory size; write a number with K, M or G, such as 512M or 2G"


@pytest.mark.parametrize("text", ["0", "0G", "0.1", "1.0001K"])
def test_what_is_no_number_of_bytes(text: str) -> None:
    with pytest.raises(BadSize, match="is not a whole number of bytes above zero"):
        parse_size(text)


@given(st.integers(min_value=1, max_value=1 << 48))
def test_the_spelling_is_exact(size: int) -> None:
    assert parse_size(format_size(size)) == size
