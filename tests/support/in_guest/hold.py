"""Claims a CPU and keeps it until it is killed."""

import sys
import time

from sidecar.client import Sidecar

with Sidecar.open("driver") as sidecar, sidecar.cpu(sys.argv[1]).claim():
    print("held", flush=True)
    time.sleep(1000)
