"""Runs one case in the guest."""

import json
import sys

from . import conversion, interface, polls, races, runs

CASES = {**interface.CASES, **runs.CASES, **conversion.CASES, **races.CASES, **polls.CASES}


def main(arguments: list[str]) -> int:
    name, *rest = arguments
    print(json.dumps(CASES[name](*rest)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
