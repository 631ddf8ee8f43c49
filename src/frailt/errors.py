"""The one exception that means "your input", as opposed to "our bug"."""


class InputError(ValueError):
    """Something that the caller gave cannot be used.

    The message is one line that names the problem and the way out. The command line prints it
    without a traceback and exits with status 2; in Python it is an ordinary ``ValueError``.
    """
