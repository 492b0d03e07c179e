"""The assembler's two exceptions: what its callers see, and what its parts raise among themselves."""


class AssemblyError(Exception):
    """A routine's text that cannot become machine code; the message names routine, line and reason.

    >>> str(AssemblyError("raise_attention", 4, "mvo eax, 1", "invalid mnemonic"))
    "raise_attention, line 4: 'mvo eax, 1': invalid mnemonic"
    """

    def __init__(self, routine: str, number: int, source: str, reason: str) -> None:
        super().__init__(f"{routine}, line {number}: '{source}': {reason}")
        self.routine = routine
        self.number = number
        self.source = source
        self.reason = reason


class RefusalError(Exception):
    """A reason alone, raised where the line is not known; whoever knows the line makes it an AssemblyError."""
