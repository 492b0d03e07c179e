"""The sums over bytes that ACPI tables are checked by."""

from hypothesis import given
from hypothesis import strategies as st

from sidecar.layout.acpi import AcpiHeader
from tests.unit.shim.helpers import RAM, changed, fresh

TABLE = RAM.start


@given(st.binary(max_size=300))
def test_byte_sum_adds_modulo_256(data: bytes) -> None:
    shim = fresh()
    shim.write(TABLE, data + b"\xa5")
    done = shim.call("byte_sum", rdi=TABLE, rcx=len(data))
    assert done.rax & 0xFF == sum(data) % 256
    assert done.zero == (sum(data) % 256 == 0)
    assert not changed(shim)


@given(st.binary(max_size=200), st.integers(0, 255))
def test_table_sum_takes_the_length_from_the_table(body: bytes, checksum: int) -> None:
    length = AcpiHeader.SIZE + len(body)
    table = bytearray(b"TEST" + length.to_bytes(4, "little") + bytes(AcpiHeader.SIZE - 8) + body)
    table[AcpiHeader.checksum] = checksum
    shim = fresh()
    shim.write(TABLE, bytes(table) + b"\xa5")
    assert shim.call("table_sum", rdi=TABLE).zero == (sum(table) % 256 == 0)
