"""The one error that is written for the person at the keyboard."""


class UserError(ValueError):
    """Something the user gave (a file, a folder, a flag) cannot be used.

    The message names the file and the row, says what was found and what was expected, and what to
    do. Entry points print it without a traceback and exit with status 2.
    """
