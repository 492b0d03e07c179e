"""Parties that attach compare the ABI's version and hash first: whoever differs reads other bytes than were written."""

from __future__ import annotations

from sidecar.layout.abi import ABI_VERSION
from sidecar.layout.registry import abi_hash
from sidecar.protocol.errors import ProtocolError
from sidecar.protocol.machine import DiscoveryError


class AbiMismatch(DiscoveryError, ProtocolError):
    """The machine's sidecar and these tools do not share one ABI; the message has both hashes."""


def require_abi(who: str, version: int, found: int) -> None:
    """Raises AbiMismatch unless `version` and the hash `found` are ours; `who` has them."""
    if (version, found) != (ABI_VERSION, abi_hash()):
        raise AbiMismatch(
            f"{who} has ABI version {version}, hash {found:#018x}; "
            f"these tools have version {ABI_VERSION}, hash {abi_hash():#018x}: use the tools it was built with"
        )
