"""What every entry point does the same way: parse flags, run, and fail in plain words.

What JAX compiles is kept in `~/.cache/dmfer_jax/compiled` (under `XDG_CACHE_HOME`, where that is
set) for the runs to come. `JAX_COMPILATION_CACHE_DIR=path` keeps it elsewhere, and
`JAX_ENABLE_COMPILATION_CACHE=false` nowhere. The folder may be removed at any time.
"""

import errno
import io
import logging as std_logging
import os
import re
import select
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from absl import app, flags, logging

from dmfer_jax import usage
from dmfer_jax.config import find_config
from dmfer_jax.data.images import quiet_decoder
from dmfer_jax.errors import UserError


def run(main: Callable[[Sequence[str]], Any], *, takes_files: bool = False) -> None:
    """Runs an entry point whose flags are defined, or prints its help.

    An error of the user's is one line on stderr and status 2; Ctrl-C is status 130. Where whatever
    reads standard output ends first, as `head` does, the command ends with it: status 141.

    Args:
      main: takes the arguments that are no flags, behind the command's name.
      takes_files: whether there may be any; flags may stand before and behind them.
    """
    arguments = sys.argv[1:]
    try:
        if any(asking in arguments for asking in usage.ASKING):
            _print_help(main, arguments, takes_files)
            return
        flags.FLAGS.set_gnu_getopt(takes_files)
        app.run(lambda argv: _guarded(main, argv, takes_files), flags_parser=_parse)
    except BrokenPipeError:
        _end_if_unread()
        raise


def printable(text: str) -> str:
    r"""Returns a text with its control characters spelt out, all but line ends.

    Terminals obey them, and what is printed may quote a file that a stranger made.

    >>> printable("\x1b[31mred")
    '\\x1b[31mred'
    """
    return re.sub("[\0-\x09\x0b-\x1f\x7f-\x9f]", lambda match: repr(match[0])[1:-1], text)


def _print_help(main: Callable[..., Any], arguments: Sequence[str], takes_files: bool) -> None:
    try:
        print(usage.describe(main, arguments, takes_files=takes_files), flush=True)
    except UserError as error:
        _fail(str(error))


def _guarded(main: Callable[[Sequence[str]], Any], argv: Sequence[str], takes_files: bool) -> None:
    _quiet_libraries()
    _keep_compiled()
    if argv[1:] and not takes_files:
        _fail(f"'{argv[1]}' is no flag; flags look like --name=value")
    try:
        main(argv)
        if sys.stdout:  # it may have been closed before the command began
            sys.stdout.flush()
    except UserError as error:
        _fail(str(error))
    except OSError as error:
        if error.errno == errno.ENOSPC and not error.filename:
            _fail("what is printed cannot be written: no space left where it goes to")
        if error.errno not in _NOT_ALLOWED or not error.filename:
            raise
        _fail(f"{error.filename}: {error.strerror}; give another path, or the right to use it")
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        raise SystemExit(130) from None


# What Path.is_file() and the like raise, too, of a path that a user gave.
_NOT_ALLOWED = (errno.EACCES, errno.EPERM, errno.ENAMETOOLONG)


def _end_if_unread() -> None:
    """Ends the process if it is standard output that nobody reads, and not another pipe."""
    output, state = sys.stdout.fileno(), select.poll()
    state.register(output, 0)
    if state.poll(0):
        os.dup2(os.open(os.devnull, os.O_WRONLY), output)  # where Python's own last flush goes
        raise SystemExit(128 + signal.SIGPIPE) from None


_OVERRIDE = re.compile(r"--?(?:no)?config\.([^=]*)", re.DOTALL)


_MISSING = re.compile(r"flag (--\w+)=None: Flag --\w+ must have a value other than None")


def _parse(argv: list[str]) -> list[str]:
    try:
        _check_names(argv)
        return flags.FLAGS(_with_found_config(_with_home(argv)))
    except (flags.Error, ValueError) as error:  # the second are ours, and ml_collections' own
        message = str(error)
        if missing := _MISSING.findall(message):
            message = f"{', '.join(missing)} must be given; --help tells more"
    except (AttributeError, KeyError) as error:
        # ml_collections raises these for a field that does not exist, its suggestion inside.
        lines = str(error.args[0]).replace("\\'", "'").replace("\\n", "\n").strip("'").split("\n")
        message = f"there is no config field {lines[0]!r}. {' '.join(lines[1:])}".strip()
    _fail(message)
    return []


def _check_names(argv: Sequence[str]) -> None:
    """Refuses fields that no config can have; ml_collections would try to read them as Python."""
    for argument in argv:
        found = _OVERRIDE.match(argument)
        if found and not re.fullmatch(r"[a-z_]+(\.[a-z_]+)*", found[1]):
            raise UserError(
                f"there is no config field {found[1][:60]!r}; fields are set as "
                "--config.section.field=value"
            )


def _with_home(argv: list[str]) -> list[str]:
    """Reads `--flag=~/path` as it is meant; of the shells, some leave the ~ there.

    All of them do behind the comma of a list.
    """
    home = os.path.expanduser("~")

    def replace(found: re.Match[str]) -> str:
        parts = found[3].split(",") if _is_list(found[2]) else [found[3]]
        return found[1] + ",".join(re.sub(r"^~(?=/|$)", lambda _: home, part) for part in parts)

    return [re.sub(r"^(--?([\w.]+)=)(.*)$", replace, one, flags=re.DOTALL) for one in argv]


def _is_list(flag: str) -> bool:
    return flag in flags.FLAGS and isinstance(flags.FLAGS[flag].parser, flags.ListParser)


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
    # With a traceback, what it raises as an error anyway.
    std_logging.getLogger("absl").addFilter(lambda record: "/orbax/" not in record.pathname)
    std_logging.getLogger("jax").setLevel(std_logging.WARNING)
    quiet_decoder()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files may be in any encoding


_KEPT_FROM = 0.3  # seconds of compiling: the steps, and not every small function


def _keep_compiled() -> None:
    """Keeps what JAX compiles, unless the environment says where or whether to."""
    cache = os.path.expanduser(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    if cache.startswith("~"):  # a service may have no home
        return
    settings = {
        "jax_compilation_cache_dir": os.path.join(cache, "dmfer_jax", "compiled"),
        "jax_persistent_cache_min_compile_time_secs": _KEPT_FROM,
    }
    for name, value in settings.items():
        if name.upper() in os.environ:
            continue
        if jax := sys.modules.get("jax"):
            jax.config.update(name, value)
        else:
            os.environ[name.upper()] = str(value)  # read by JAX if it is imported later
    # An entry that is damaged or cannot be written costs its time once more, and nothing else.
    warnings.filterwarnings("ignore", message="Error (reading|writing) persistent compilation")


def _fail(message: str) -> None:
    print(f"error: {printable(message)}", file=sys.stderr)
    raise SystemExit(2)
