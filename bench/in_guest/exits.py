"""In the guest: what an exit to a VMM in Python costs. Prints the same line as exits.c.

    python3 exits.py CPU COUNT
"""

import sys
import time

from sidecar.client import Sidecar
from sidecar.client.vmm.loaders.modes import Mode
from sidecar.client.vmm.loaders.raw import load_raw

GUEST = bytes.fromhex("e6 5f eb fc")  # again: out 0x5f, al; jmp again


def main(number: int, count: int) -> None:
    taken = []
    with Sidecar.open() as sidecar, sidecar.machine(memory=1 << 20) as machine:
        vp = machine.add_vp(number)
        load_raw(machine.memory, vp, GUEST, Mode.REAL)
        machine.handle(vp, vp.run())
        for _ in range(count):
            before = time.perf_counter_ns()
            machine.handle(vp, vp.run())
            taken.append(time.perf_counter_ns() - before)
    taken.sort()
    print(*(taken[(count - 1) * quarter // 4] for quarter in range(5)))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
