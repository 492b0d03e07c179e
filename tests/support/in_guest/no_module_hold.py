"""Commands the first CPU without a driver, again and again, and says how it ended.

    no_module_hold.py spin    leaves a command running on CPU 1 and sleeps
    no_module_hold.py loop    NONE on CPU 1 until something stops it
"""

import sys
import time

from sidecar.client import DriverAppeared, Sidecar
from sidecar.layout import RaiseKind, SidecarCommand
from sidecar.protocol.commands import raise_request

with Sidecar.open("no-module") as sidecar:
    cpu = sidecar.cpu(1)
    cpu.none()
    print("held", flush=True)
    if sys.argv[1] == "spin":
        run = cpu.start(SidecarCommand.RAISE, raise_request(RaiseKind.SPIN))
        time.sleep(1000)
    try:
        while True:
            cpu.none()
    except DriverAppeared as error:
        print(error, flush=True)
