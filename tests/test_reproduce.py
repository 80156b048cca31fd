"""Command and digest of a run: they bring back the same config, and tell of no folder."""

import shlex
from collections.abc import Callable

import pytest
from absl import flags
from ml_collections import ConfigDict, config_flags

from dmfer_jax import config as configs
from dmfer_jax import reproduce


def change(config: ConfigDict) -> ConfigDict:
    config.seed = 2
    config.data.train_splits = ("train", "valid")
    config.data.drop_classes = ("contempt",)
    config.data.test_splits = ()
    config.data.source, config.data.data_dir = "/home/me/fer 2013", "/home/me/records"
    config.model.depthwise = True
    config.loss.weight = 1e-05
    config.init_from = "/home/me/face.safetensors"
    return config


@pytest.fixture
def parse(monkeypatch) -> Callable[[list[str]], ConfigDict]:
    """Reads a config from flags, as an entry point does."""

    def read(arguments: list[str]) -> ConfigDict:
        values = flags.FlagValues()
        monkeypatch.setattr("sys.argv", ["train", *arguments])  # where it looks for fields
        found = config_flags.DEFINE_config_file("config", flag_values=values)
        values(["train", *arguments])
        return found.value

    return read


def test_flags_bring_the_config_back(parse):
    path = configs.find_config("configs/synthetic.py")
    config = change(configs.load_config(path))
    arguments = [f"--config={path}", *reproduce.override_flags(path, config)]
    assert parse(arguments).to_dict() == config.to_dict()


def test_command_names_no_folder_of_this_machine_and_still_means_the_same(parse):
    path = configs.find_config("configs/synthetic.py")
    config = change(configs.load_config(path))
    command = reproduce.train_command(path, config)
    python, _, module, given, seed, *rest = shlex.split(command)
    assert (python, module, given) == ("python", "dmfer_jax.train", "--config=configs/synthetic.py")
    assert seed == "--config.seed=2"
    assert "/home" not in command
    assert "\"--config.data.train_splits=('train', 'valid')\"" in command
    found = parse([f"--config={path}", seed, *rest])
    assert reproduce.config_digest(found) == reproduce.config_digest(config)
    assert found.init_from == "face.safetensors"


def test_first_seed_is_named_too():
    path = configs.find_config("configs/ferplus.py")
    command = reproduce.train_command(path, configs.load_config(path))
    assert command == "python -m dmfer_jax.train --config=configs/ferplus.py --config.seed=0"


@pytest.mark.parametrize(
    ("field", "value", "same"),
    [
        ("seed", 5, True),
        ("data.source", "elsewhere", True),
        ("data.workers", 9, True),
        ("init_from", "/moved/face.safetensors", True),
        ("init_from", "other.safetensors", False),
        ("loss.margin", 0.3, False),
        ("data.drop_classes", (), False),
    ],
)
def test_digest_is_of_what_a_run_computes_but_for_its_seed(field, value, same):
    config = change(configs.get_config())
    before = reproduce.config_digest(config)
    config.update_from_flattened_dict({field: value})
    assert (reproduce.config_digest(config) == before) == same


def test_a_field_that_a_later_release_adds_changes_no_digest():
    config = change(configs.get_config()).to_dict()
    before = reproduce.config_digest(config)
    del config["data"]["vote_power"]
    assert reproduce.config_digest(config) == before


def test_digest_of_a_report_is_that_of_its_run():
    config = change(configs.get_config())
    reported = config.to_dict()
    reported["init_from"] = "face.safetensors"
    del reported["data"]["source"], reported["data"]["data_dir"]
    assert reproduce.config_digest(reported) == reproduce.config_digest(config)
