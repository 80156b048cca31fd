"""The command `dmfer`, whose subcommands are the entry points of this package.

  dmfer train --config=configs/synthetic.py

is `python -m dmfer_jax.train --config=configs/synthetic.py`. Imports nothing but what Python has,
so that the list of commands is there at once.
"""

import ast
import difflib
import importlib.util
import runpy
import shutil
import sys
import textwrap
from collections.abc import Sequence

import dmfer_jax

COMMANDS = (
    "predict",
    "serve",
    "train",
    "evaluate",
    "prepare",
    "export",
    "explain",
    "ablate",
    "compare",
    "record",
    "replay",
    "compile_check",
)
"""The entry points, modules of this package, in the order in which they are listed."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the subcommand that the first argument names.

    Args:
      arguments: behind the command's name; those of this process if not given.

    Raises:
      SystemExit: of the subcommand; with status 2, there is no such one.
    """
    name, *rest = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if name in ("--help", "-h"):
        print(_overview())
    elif name == "--version":
        print(f"dmfer_jax {dmfer_jax.__version__}")
    elif name in COMMANDS:
        sys.argv = [f"dmfer {name}", *rest]
        runpy.run_module(f"dmfer_jax.{name}", run_name="__main__")
    else:
        near = difflib.get_close_matches(name.replace("-", "_"), COMMANDS, n=1)
        hint = f"did you mean {near[0]}?" if near else "dmfer --help lists them"
        print(f"error: there is no command {name!r}; {hint}", file=sys.stderr)
        raise SystemExit(2)


def _overview() -> str:
    indent = 4 + max(map(len, COMMANDS))
    width = min(shutil.get_terminal_size().columns, 100)
    listed = "\n".join(
        textwrap.fill(
            _first_line(name),
            width,
            initial_indent=f"  {name}".ljust(indent),
            subsequent_indent=" " * indent,
        )
        for name in COMMANDS
    )
    return (
        "usage: dmfer COMMAND [ARGUMENTS]\n\n"
        "Facial expression recognition: photos in, expressions out; training, evaluation, export.\n"
        f"\ncommands:\n{listed}\n\n"
        "  dmfer COMMAND --help   tells about a command, with examples\n"
        "  dmfer --version        prints the version"
    )


def _first_line(name: str) -> str:
    """The first line of an entry point's docstring, read without running it."""
    spec = importlib.util.find_spec(f"dmfer_jax.{name}")
    source = spec.loader.get_source(spec.name)  # pyright: ignore
    return (ast.get_docstring(ast.parse(source)) or "").partition("\n")[0]


if __name__ == "__main__":
    main()
