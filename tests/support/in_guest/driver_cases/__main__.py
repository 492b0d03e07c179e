"""Runs one case in the guest."""

import json
import sys

from . import conversion, interface, races, runs

CASES = {**interface.CASES, **runs.CASES, **conversion.CASES, **races.CASES}

if __name__ == "__main__":
    print(json.dumps(CASES[sys.argv[1]](*sys.argv[2:])))
