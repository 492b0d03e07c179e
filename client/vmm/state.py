"""The whole state of a stopped virtual processor, to be restored on the same CPU or another one.

    data = vp.save().pack()
    other.restore(VpSnapshot.unpack(data))
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from sidecar.client.vmm.registers import REGISTERS, Kind
from sidecar.layout.command import CommandPage
from sidecar.layout.hv_registers import HvRegisterName as Name

FX_STATE = int(CommandPage.cpu_context.fx_state)
FX_BYTES = CommandPage.cpu_context.fx_state.SIZE

READ_ONLY = (Name.HvX64RegisterMsrMtrrCap,)
NOT_KEPT = (Name.HvRegisterInternalActivityState,)
"""The sidecar has no such state: HLT is the VMM's."""

SAVED = tuple(
    entry for entry in REGISTERS.values() if entry.kind is not Kind.VECTOR and entry.number not in NOT_KEPT
)  # fmt: skip
"""Every register that is not part of the floating-point state, which is saved as a whole."""

WRITABLE = tuple(entry for entry in SAVED if entry.number not in READ_ONLY)


@dataclass(frozen=True, slots=True)
class VpSnapshot:
    """Registers by TLFS name, as numbers; fx_state: FXSAVE image; xsave: what follows it in the XSAVE
    image, without zeros at its end.

    bits: of the doorbell, taken and not told of; interrupts, nmi: what the guest has not taken yet.
    """

    registers: dict[str, int]
    fx_state: bytes
    xsave: bytes
    bits: int
    interrupts: list[int]
    nmi: bool

    def pack(self) -> bytes:
        """As JSON: numbers in hex, bytes as hex digits."""
        values = asdict(self) | {"registers": {name: hex(value) for name, value in self.registers.items()}}
        return json.dumps(values | {"fx_state": self.fx_state.hex(), "xsave": self.xsave.hex()}).encode()

    @classmethod
    def unpack(cls, data: bytes) -> VpSnapshot:
        """Raises ValueError for what is no snapshot."""
        try:
            values = json.loads(data)
            values["registers"] = {name: int(value, 16) for name, value in values["registers"].items()}
            return cls(**values | {name: bytes.fromhex(values[name]) for name in ("fx_state", "xsave")})
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"this is no saved virtual processor: {error!r}") from error
