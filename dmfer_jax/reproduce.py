"""What brings a run about once more: its command, and a digest that tells its config from others.

Both leave away where files lie on this machine. They belong to whoever runs it.
"""

import hashlib
import json
import re
import shlex
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from dmfer_jax.config import get_config, load_config
from dmfer_jax.reporting.run_report import MAY_CHANGE
from dmfer_jax.run_folder import complete, flatten, list_fields


def config_digest(config: ConfigDict | dict[str, Any]) -> str:
    """Returns 12 hexadecimal digits that two configs share if they differ in their seeds only.

    Fields that do not change what a run computes do not count, and of `init_from` the file's name
    alone does. Of the others those count that are not at their default: a field that a later
    release adds leaves the digest of what was run before as it is.

    Args:
      config: of a run, or the `config` of its report.
    """
    flat, default = flatten(complete(config)), flatten(get_config())
    kept = {key: value for key, value in flat.items() if value != default.get(key)}
    kept = {key: value for key, value in kept.items() if key not in (*MAY_CHANGE, "seed")}
    kept["init_from"] = Path(flat["init_from"]).name
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:12]


def override_flags(path: str, config: ConfigDict) -> list[str]:
    """Returns the flags that turn the config of a file into another: ["--config.seed=1", ...].

    Args:
      path: of the config file.
      config: which is to come out.
    """
    before, now = (list_fields(one) for one in (load_config(path), config))
    return [
        f"--config.{field}={value}" for field, value in now.items() if value != before.get(field)
    ]


def train_command(path: str, config: ConfigDict) -> str:
    """Returns the command that trains by a config, as a shell takes it.

    It names the seed in any case, the config file as the ones that ship are named, and no other
    place on this machine.

    Args:
      path: of the config file.
      config: of the run.
    """
    public = config.copy_and_resolve_references()
    original: Any = load_config(path)
    public.data.source, public.data.data_dir = original.data.source, original.data.data_dir
    public.init_from = Path(config.init_from).name if config.init_from else ""
    flags = [flag for flag in override_flags(path, public) if not flag.startswith("--config.seed=")]
    given = Path(path)
    shown = given.name if given.is_absolute() else str(given)
    if given.parent.name == "configs":
        shown = f"configs/{given.name}"
    flags = [f"--config={shown}", f"--config.seed={config.seed}", *flags]
    return " ".join(["python -m dmfer_jax.train", *map(_quote, flags)])


def _quote(text: str) -> str:
    """Quotes as a person would: a tuple of names has single quotes already."""
    if "'" in text and not re.search(r'["$`!\\]', text):
        return f'"{text}"'
    return shlex.quote(text)
