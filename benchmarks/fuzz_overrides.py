"""Fuzzes what is written behind a command: `--config.section.field=value`, right and wrong."""

import contextlib
import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

from absl import flags
from hypothesis import strategies as st
from ml_collections import config_flags

from benchmarks.fuzz_inputs import WORDS
from dmfer_jax import command
from dmfer_jax import config as configs
from dmfer_jax.errors import UserError

_BASE = Path(configs.__file__).parents[1] / "configs" / "synthetic.py"

_VALUES = (
    *(word.decode("utf-8", "surrogateescape") for word in WORDS),
    "resnet50", "small", "none", "bfloat16", "learned", "True", "False", "('train','valid')",
    "('a',)", "()", "(1,2)", "(0.1,0.2)", "((((", "(" * 300 + ")" * 300, "[1]", "{}", "{1:2}",
    "lambda:0", "__import__('os')", "1e400", "-1e-400", "1j", "'a'", "b'a'", "1,2", "0.5", "0.1 ",
    "1 ", "1L", "0b1", "[0]*10**9", "10**10**10", "'a'*10**9", "1 if 1 else 2", "#", "a\nb",
    "--config", "${seed}", "@x", "-" * 5_000 + "1",
)  # fmt: skip


_NAMES = (
    "", ".", "model.", ".model", "modle.width", "model.width.x", "model..width", "model.items",
    "model.__class__", "data.update", "seed.x", "model[0]", "model.width[0]", "train.epocs",
)  # fmt: skip


def command_lines() -> st.SearchStrategy[list[str]]:
    """Returns a strategy for the arguments behind `--config=FILE`."""
    config = configs.get_config().to_dict()
    sections = {name: inside for name, inside in config.items() if isinstance(inside, dict)}
    fields = {
        f"{section}.{field}": str(value)
        for section, inside in sections.items()
        for field, value in inside.items()
    }
    names = st.one_of(
        *[st.sampled_from([*fields, *config])] * 6, st.sampled_from(_NAMES), st.text(max_size=12)
    )
    values = st.one_of(
        *[st.sampled_from(_VALUES)] * 4,
        st.integers(-3, 2**70).map(str),
        st.floats().map(str),
        st.text(max_size=20),
    )
    default = st.sampled_from([f"--config.{name}={value}" for name, value in fields.items()])
    prefix = st.sampled_from(["--config.", "--config.", "--config.", "-config.", "--noconfig."])
    override = st.builds("{}{}={}".format, prefix, names, values)
    bare = st.builds("{}{}".format, prefix, names)
    odd = st.sampled_from(["--config=", "--config", "--", "-", "x", "--workdir", "--config=a.py:b"])
    argument = st.one_of(*[default] * 6, *[override] * 6, bare, odd, st.text(max_size=10))
    return st.lists(argument, min_size=1, max_size=3)


def open_overrides(folder: Path) -> Callable[[list[str]], None]:
    """Feeds arguments as `train` gets them: parsed as a command does, then validated."""
    del folder

    def feed(arguments: list[str]) -> None:
        argv = ["train.py", f"--config={_BASE}", *arguments]
        values = flags.FlagValues()
        config_flags.DEFINE_config_file("config", None, "The experiment.", flag_values=values)
        flags.DEFINE_string("workdir", "", "Folder of the run.", flag_values=values)
        said = io.StringIO()
        with (
            mock.patch.object(flags, "FLAGS", values),
            mock.patch.object(sys, "argv", argv),
            contextlib.redirect_stderr(said),
        ):
            try:
                rest = command._parse(argv)
            except SystemExit as error:
                message = said.getvalue()
                if (
                    error.code == 2
                    and message.startswith("error: ")
                    and message.strip() != "error:"
                ):
                    raise UserError(message) from None
                raise RuntimeError(f"status {error.code}, and it said {message!r}") from None
        if rest[1:]:
            raise UserError("an argument is no flag")  # as every command refuses it
        config: Any = values.config
        configs.validate(config)

    return feed
