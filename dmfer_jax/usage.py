"""What `--help` prints of a command: what it does, examples, and its own flags.

absl's own help names the folder that the package lies in, leaves out flags that another module of
the package defines, and ends with an error's status.
"""

import argparse
import inspect
import re
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from absl import flags
from ml_collections import ConfigDict

from dmfer_jax.config import load_config, shipped_configs

ASKING = ("--help", "-help", "--helpshort", "-h", "-?")
"""Flags that ask for it, wherever they stand."""

_KINDS = {
    "int": "INTEGER",
    "float": "NUMBER",
    "comma separated list of strings": "A,B,...",
    "config object": "FILE",
}
_LONG = 30  # characters of an enum's values that are not worth a column
_PLACE = re.compile(r"(?:\w+: )?(?:\w+ ){0,2}?(file or folder|file|folder)\b", re.IGNORECASE)


def describe(main: Callable[..., Any], arguments: Sequence[str], *, takes_files: bool) -> str:
    """Returns the help of an entry point, ready to print.

    Args:
      main: of the entry point's module, whose docstring says what the command does, with examples.
      arguments: of the command line. Where they name a config, its fields are listed.
      takes_files: whether the command takes arguments that are no flags.

    Raises:
      UserError: there is no such config.
    """
    module = inspect.unwrap(main).__globals__
    spec = module.get("__spec__")
    name = f"python -m {spec.name}" if spec else sys.argv[0]
    text = module["__doc__"].strip()
    if sys.argv[0].startswith("dmfer "):
        text, name = text.replace("python -m dmfer_jax.", "dmfer "), sys.argv[0]
    own = sorted(_own_flags(), key=lambda flag: not _is_required(flag))
    needed = [_form(flag) for flag in own if _is_required(flag)]
    width = min(shutil.get_terminal_size().columns, 100)
    parser = argparse.ArgumentParser(
        usage=" ".join([name, *needed, "[FLAGS]", *["PATH..."] * takes_files]),
        description=text,
        epilog=_config_help(arguments, width) if "--config=FILE" in needed else "",
        formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(prog, 2, 30, width),
        add_help=False,
    )
    group = parser.add_argument_group("flags")
    for flag in own:
        group.add_argument(_form(flag), action="store_true", help=_sentence(flag))
    group.add_argument("--help", action="store_true", help="Prints this.")
    return parser.format_help().rstrip()


def _own_flags() -> Iterator[flags.Flag]:
    """The flags of this command: of the module that was started, and of modules of the package."""
    for module, defined in flags.FLAGS.flags_by_module_dict().items():
        if module == sys.argv[0] or module.startswith("dmfer_jax."):
            yield from (flag for flag in defined if not flag.name.startswith("config."))


def _is_required(flag: flags.Flag) -> bool:
    return flag.default is None and bool(flag.validators)


def _form(flag: flags.Flag) -> str:
    """How a flag is given, such as `--seeds=INTEGER`."""
    if flag.boolean:
        return f"--[no]{flag.name}"
    if isinstance(flag, flags.EnumFlag):
        values = _values(flag)
        return f"--{flag.name}={values if len(values) < _LONG else 'NAME'}"
    if flag.flag_type() in _KINDS:
        return f"--{flag.name}={_KINDS[flag.flag_type()]}"
    # Flags that are paths are texts to absl, but their help begins with what is there.
    place = _PLACE.match(flag.help or "")
    return f"--{flag.name}={place[1].upper().replace(' ', '_') if place else 'TEXT'}"


def _values(flag: flags.EnumFlag) -> str:
    return "|".join(filter(None, flag.parser.enum_values))


def _sentence(flag: flags.Flag) -> str:
    """What a flag is for, and its default where it says something."""
    text = flag.help or ""
    for added in (r"^<[^>]*>: ", r"; +repeat this option to specify a list of values$"):
        text = re.sub(added, "", text.replace("\n", " "))  # by absl
    if isinstance(flag, flags.EnumFlag) and len(_values(flag)) >= _LONG:
        text += f" One of {_values(flag)}."
    if _is_required(flag):
        text += " (required)"
    elif flag.boolean:
        text += f" (default: {'yes' if flag.default else 'no'})"
    elif flag.default not in (None, "", [], 0):
        shown = flag.default
        text += f" (default: {','.join(shown) if isinstance(shown, list) else shown})"
    return text.replace("%", "%%")  # argparse fills in what follows a %


def _config_help(arguments: Sequence[str], width: int) -> str:
    given = [one.partition("=")[2] for one in arguments if one.startswith("--config=")]
    if given:
        fields = "\n".join(_fields(load_config(given[-1]), "--config."))
        return f"fields of {given[-1]} (dmfer_jax/config.py says what each is):\n{fields}"
    names = ", ".join(f"configs/{path.name}" for path in shipped_configs())
    told = (
        "A config's fields are set as --config.section.field=value, such as "
        "--config.model.width=0.5; --help together with --config=FILE lists them. Configs that "
        f"ship, and are found from any folder: {names}."
    )
    return "\n".join(textwrap.wrap(told, width, break_on_hyphens=False))


def _fields(config: ConfigDict, prefix: str) -> Iterator[str]:
    for name, value in config.items():
        if isinstance(value, ConfigDict):
            yield from _fields(value, f"{prefix}{name}.")
        else:
            yield f"  {prefix}{name}={value}"
