"""In the guest: what an empty command costs from Python. Prints the same line as dispatch.c.

    python3 dispatch.py CPU COUNT GAP_US
"""

import sys
import time

from sidecar.client import Sidecar


def main(name: str, count: int, gap_us: int) -> None:
    taken = []
    with Sidecar.open() as sidecar:
        cpu = sidecar.cpu(name)
        with cpu.claim():
            for _ in range(count):
                before = time.perf_counter_ns()
                cpu.none()
                taken.append(time.perf_counter_ns() - before)
                end = time.perf_counter() + gap_us / 1e6
                while time.perf_counter() < end:
                    pass
    taken.sort()
    print(*(taken[(count - 1) * quarter // 4] for quarter in range(5)))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
