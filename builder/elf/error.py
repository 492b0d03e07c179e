"""The one exception of the ELF writer, checker and reader.

Runs on the developer's machine. Every message is one sentence: what, where, expected, got; numbers in hex.
"""


class ElfError(Exception):
    """An ELF file, or the request to write one, is refused; the message is one sentence for the user."""
