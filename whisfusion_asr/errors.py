"""The one exception for what the user can mend; commands turn it into one line and exit code 2."""

import sys
from collections.abc import Callable
from functools import wraps

USER_ERROR = 2  # exit code


class UserError(Exception):
    """Wrong input: the message says what, where (file, line, key), what was expected and the remedy, in one line."""


def exits_cleanly(main: Callable[..., None]) -> Callable[..., None]:
    """Turn a UserError (and a full disk or a missing file) of a command into one line on stderr and exit code 2."""

    @wraps(main)
    def wrapped(*args: object, **kwargs: object) -> None:
        try:
            main(*args, **kwargs)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(USER_ERROR)
        except OSError as error:
            place = f"{error.filename}: " if error.filename else ""
            print(f"error: {place}{error.strerror or error}", file=sys.stderr)
            sys.exit(USER_ERROR)

    return wrapped
