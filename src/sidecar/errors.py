"""The one error that every part shares: the user's own mistake."""


class UserError(Exception):
    """What the user asked for cannot be done, and the message says in one sentence why and what would help.

    The command line prints the message alone and exits with status 2; every other exception is ours and keeps its
    traceback.
    """
