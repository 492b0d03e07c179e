"""In the guest: MEASURE_GAPS on a CPU of the sidecar. Prints the fields of its answer in their order, like gaps.c.

    python3 gaps.py CPU TICKS
"""

import struct
import sys

from sidecar.client import Sidecar
from sidecar.layout import GapsAnswer, RaiseKind, SidecarCommand
from sidecar.layout.command import GAP_BINS
from sidecar.protocol.requests import raise_request


def main(name: str, ticks: int) -> None:
    with Sidecar.open() as sidecar:
        answer = sidecar.cpu(name).execute(SidecarCommand.RAISE, raise_request(RaiseKind.MEASURE_GAPS, ticks))
    print(
        *struct.unpack_from("<2Q", answer, int(GapsAnswer.ticks)),
        *struct.unpack_from(f"<{GAP_BINS}Q", answer, int(GapsAnswer.sums)),
        *struct.unpack_from(f"<{GAP_BINS}I", answer, int(GapsAnswer.counts)),
    )


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
