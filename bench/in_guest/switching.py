"""In the guest: how long Linux's switch of a CPU takes, there and back. Prints JSON: [[online ms...], [offline ms...]].

    python3 switching.py CPU ROUNDS

The CPU is offline at the start, and at the end.
"""

import json
import sys
import time
from pathlib import Path


def main(cpu: str, rounds: int) -> None:
    switch = Path(f"/sys/devices/system/cpu/cpu{cpu}/online")
    taken: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for value, times in zip("10", taken, strict=True):
            before = time.perf_counter_ns()
            switch.write_text(value)
            times.append((time.perf_counter_ns() - before) / 1e6)
    print(json.dumps(taken))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
