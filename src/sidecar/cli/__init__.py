"""The commands of `sidecar`, one module each. They are thin: parse, call the library, print.

A command's module offers `add(commands)`, which registers its parser and its function:

    def add(commands: Commands) -> None:
        parser = commands.add_parser("doctor", help="what this host has and lacks")
        parser.set_defaults(run=run)

    def run(options: argparse.Namespace) -> int:    # the exit status
"""
