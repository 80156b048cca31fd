"""What every entry point does the same way: parse flags, run, and fail in plain words."""

import io
import logging as std_logging
import re
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from absl import app, flags, logging

from dmfer_jax.config import find_config
from dmfer_jax.errors import UserError


def run(main: Callable[[Sequence[str]], Any]) -> None:
    """Runs an entry point whose flags are defined.

    An error of the user's is one line on stderr and status 2; Ctrl-C is status 130.

    Args:
      main: takes the arguments that are no flags.
    """
    app.run(lambda argv: _guarded(main, argv), flags_parser=_parse)


def printable(text: str) -> str:
    r"""Returns a text with its control characters spelt out, all but line ends.

    Terminals obey them, and what is printed may quote a file that a stranger made.

    >>> printable("\x1b[31mred")
    '\\x1b[31mred'
    """
    return re.sub("[\0-\x09\x0b-\x1f\x7f-\x9f]", lambda match: repr(match[0])[1:-1], text)


def _guarded(main: Callable[[Sequence[str]], Any], argv: Sequence[str]) -> None:
    _quiet_libraries()
    if argv[1:]:
        _fail(f"'{argv[1]}' is no flag; flags look like --name=value")
    try:
        main(argv)
    except UserError as error:
        _fail(str(error))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        raise SystemExit(130) from None


def _parse(argv: list[str]) -> list[str]:
    try:
        return flags.FLAGS(_with_found_config(argv))
    except (UserError, flags.Error) as error:
        message = str(error)
    except (AttributeError, KeyError) as error:
        # ml_collections raises these for a field that does not exist, its suggestion inside.
        lines = str(error.args[0]).replace("\\'", "'").replace("\\n", "\n").strip("'").split("\n")
        message = f"there is no config field {lines[0]!r}. {' '.join(lines[1:])}".strip()
    _fail(message)
    return []


def _with_found_config(argv: list[str]) -> list[str]:
    """Lets `--config` name a config that ships, from any folder."""
    argv = list(argv)
    for index, argument in enumerate(argv):
        if argument.startswith("--config="):
            argv[index] = "--config=" + find_config(argument.removeprefix("--config="))
        elif argument == "--config" and index + 1 < len(argv):
            argv[index + 1] = find_config(argv[index + 1])
    return argv


def _quiet_libraries() -> None:
    """Keeps to warnings; Orbax alone says thirty lines a checkpoint."""
    logging.set_verbosity(logging.WARNING)
    std_logging.getLogger("jax").setLevel(std_logging.WARNING)
    # Of damaged images Pillow warns in its own terms; those that cannot be used are an error.
    std_logging.getLogger("PIL").setLevel(std_logging.CRITICAL)
    warnings.filterwarnings("ignore", module="PIL")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files may be in any encoding


def _fail(message: str) -> None:
    print(f"error: {printable(message)}", file=sys.stderr)
    raise SystemExit(2)
