"""The config in the folder of a run, and that the run goes on with the same one."""

import contextlib
import json
import re
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from dmfer_jax import files
from dmfer_jax.config import get_config
from dmfer_jax.errors import UserError
from dmfer_jax.reporting.report import read_report
from dmfer_jax.reporting.run_report import MAY_CHANGE


def save_config(workdir: Path, config: ConfigDict) -> None:
    """Writes `workdir/config.json`, where the run in the folder is none or one of the same config.

    A run may go on with other logging and on another machine; what it computes stays the same. A
    folder without a whole checkpoint and without a report holds no run yet.

    Raises:
      UserError: the folder holds a run of another config; the message lists what differs.
    """
    whole = re.compile(r"\d+(\.json)?")  # what is half-written has other endings
    saved = any(whole.fullmatch(path.name) for path in workdir.glob("*checkpoints/*"))
    if (workdir / "config.json").exists() and (saved or (workdir / "report.json").exists()):
        check_same_config(workdir, load_config(workdir), config)
    write_config(workdir, config)


def check_config_of_main(workdir: Path, config: ConfigDict) -> None:
    """Refuses another config than process 0 has just written; hosts may keep files elsewhere.

    Raises:
      UserError: it differs; the message names a field.
    """
    of_main, here = flatten(_read_config(workdir / "config.json")), flatten(config)
    for field in sorted(here.keys() - {*_OF_HOST}):
        if here[field] != of_main.get(field):
            raise UserError(
                f"config.{field} is {here[field]!r} here, and {of_main.get(field)!r} in process 0; "
                "start all processes by the same command"
            )


def write_config(workdir: Path, config: ConfigDict) -> None:
    """Writes `workdir/config.json`, whatever is there."""
    text = json.dumps(json.loads(config.to_json_best_effort()), indent=2) + "\n"
    files.write_text(workdir / "config.json", text)


def check_same_config(holder: Path, old: ConfigDict | dict[str, Any], config: ConfigDict) -> None:
    """Refuses to go on with a run by another config.

    Args:
      holder: folder of the run or of the checkpoint, for the message.
      old: its config; fields that were not there yet have their defaults.
      config: of now.

    Raises:
      UserError: they differ in what a run computes; the message lists the fields.
    """
    if differences := find_differences(old, config):
        raise UserError(
            f"{holder} is of a run of another config: {'; '.join(differences)}. "
            "Use another --workdir, or set these back to go on with that run."
        )


def find_differences(old: ConfigDict | dict[str, Any], config: ConfigDict) -> list[str]:
    """Returns in what two configs describe other runs, such as "loss.margin was 0.2 and is 0.3".

    Args:
      old: fields that were not there yet have their defaults.
      config: of now.
    """
    before, now = (flatten(one) for one in (complete(old), config))
    return [
        f"{key} was {before.get(key)!r} and is {now.get(key)!r}"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key)
        and key not in MAY_CHANGE
        # With a second build of the same the variant has to be named; records are known by digest.
        and not (key == "data.dataset" and _names_the_same(before.get(key), now.get(key)))
    ]


def _names_the_same(one: Any, other: Any) -> bool:
    """Whether two names of a dataset differ in one of them naming no variant."""
    return any(str(a).startswith(f"{b}/") for a, b in ((one, other), (other, one)))


def find_unlike(old: ConfigDict | dict[str, Any], config: ConfigDict) -> list[str]:
    """Returns why runs of two configs do not belong side by side in one table.

    As `find_differences`, and whether they begin with files of the same name and are scored on the
    same test splits.
    """
    both: list[Any] = [complete(old), config]
    names = [Path(one.init_from).name for one in both]
    tests = [tuple(one.data.test_splits) for one in both]
    return [
        *find_differences(old, config),
        *[f"init_from was {names[0]!r} and is {names[1]!r}"] * (names[0] != names[1]),
        *[f"data.test_splits was {tests[0]} and is {tests[1]}"] * (tests[0] != tests[1]),
    ]


def check_alike(holder: Path, workdir: Path, old: dict[str, Any], config: ConfigDict) -> None:
    """Refuses a finished run that does not belong into the table of a config.

    Args:
      holder: what tells its config, for the message.
      workdir: of the run.
      old: its config.
      config: that it is to have.

    Raises:
      UserError: they are not alike, see `find_unlike`; the message lists the fields.
    """
    if differences := find_unlike(old, config):
        raise UserError(
            f"{holder} is of a run of another config: {'; '.join(differences)}. Move {workdir} "
            "away to run it anew, or give another --out."
        )


def flatten(config: ConfigDict | dict[str, Any]) -> dict[str, Any]:
    """Returns a config as {"loss.margin": 0.2, ...}, of values that JSON has."""
    whole = config if isinstance(config, ConfigDict) else ConfigDict(config)
    return list_fields(json.loads(whole.to_json_best_effort()))


def list_fields(config: ConfigDict | dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns a config as {"loss.margin": 0.2, ...}, of values as they are."""
    fields: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, (ConfigDict, dict)):
            fields |= list_fields(value, f"{prefix}{key}.")
        else:
            fields[prefix + key] = value
    return fields


def complete(config: ConfigDict | dict[str, Any]) -> ConfigDict:
    """Returns a config that was kept, such as that of a report, with the types of now.

    Fields that were not there yet get their defaults, which do what it did. Fields that no config
    has stay, for `config.validate` to refuse.

    Raises:
      TypeError, ValueError: it has a value of another type than the field.
    """
    known = get_config()
    known.update(config)
    return known


def load_config(workdir: Path) -> ConfigDict:
    """Returns the config of the run in a folder; with the variant of its dataset, if known.

    Raises:
      UserError: there is no run in the folder.
    """
    path = workdir / "config.json"
    if not path.is_file():
        raise UserError(f"{workdir} holds no run: there is no {path.name} in it")
    config = _read_config(path)
    with contextlib.suppress(UserError, KeyError):  # no report yet, or none that can be read
        found = read_report(workdir / "report.json")["dataset"]
        if str(found).startswith(f"{config.data.dataset}/"):
            config.data.dataset = found
    return config


def _read_config(path: Path) -> ConfigDict:
    """A run's config, as of `complete`."""
    try:
        return complete(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{path} is damaged or was not written by this program ({reason}). The config stands "
            "in each checkpoint's checkpoint.json, too, under note.config: copy it from there."
        ) from error


_OF_HOST = ("init_from", "data.source", "data.data_dir", "data.workers")
"""Fields that may differ between the hosts of one run; of `init_from` the path alone."""
