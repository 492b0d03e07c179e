"""The argument parser that all commands share: a mistake is one sentence on stderr and exit status 2."""

import argparse
from collections.abc import Callable
from typing import NoReturn, TypeAlias

from sidecar.errors import UserError

MISTAKE = 2  # exit status

Run: TypeAlias = Callable[[argparse.Namespace], int]


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose error message is one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(MISTAKE, f"{self.prog}: {message} (see {self.prog} --help)\n")


Commands: TypeAlias = "argparse._SubParsersAction[Parser]"


def checked(convert: Callable[[str], object], name: str) -> Callable[[str], object]:
    """`convert` as the type of an argument: the sentence of its UserError becomes the parser's message."""

    def argument(text: str) -> object:
        try:
            return convert(text)
        except UserError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    argument.__name__ = name
    return argument


def positive(text: str) -> int:
    """A number of things, at least one; hexadecimal with 0x."""
    try:
        number = int(text, 0)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number of at least 1")
    return number
