"""A program without the start of a Python for every call, which is most of its time under TCG: `PIPE MODULE`.

Reads lines of JSON from the pipe, [number, argument...], has the module's main(arguments) run in a child for each, and
prints [number, exit status, output, errors].
"""

import importlib
import json
import os
import sys
from collections.abc import Callable

Main = Callable[[list[str]], int]


def run(main: Main, arguments: list[str]) -> tuple[int, str, str]:
    """Exit status, negative for a signal, and what was printed."""
    files = [os.memfd_create(name) for name in ("out", "err")]
    child = os.fork()
    if child == 0:
        for number, file in enumerate(files, 1):
            os.dup2(file, number)
        try:
            status = main(arguments)
        except SystemExit as end:  # the parser's
            status = int(end.code or 0)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    _, ended = os.waitpid(child, 0)
    texts = []
    for file in files:
        with open(file, "rb") as printed:
            printed.seek(0)
            texts.append(printed.read().decode())
    return os.waitstatus_to_exitcode(ended), texts[0], texts[1]


def serve(path: str, module: str) -> None:
    main: Main = importlib.import_module(module).main
    os.mkfifo(path)
    pipe = os.fdopen(os.open(path, os.O_RDWR), "r")  # with a writer of our own it never ends
    print("ready", flush=True)
    for line in pipe:
        number, *arguments = json.loads(line)
        print(json.dumps([number, *run(main, arguments)]), flush=True)


serve(*sys.argv[1:])
