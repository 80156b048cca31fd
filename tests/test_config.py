"""Every option is read, every wrong value is refused by name, and every config that ships works."""

import re
from pathlib import Path
from typing import Any

import pytest

import dmfer_jax
from dmfer_jax import config as configs
from dmfer_jax import losses
from dmfer_jax.errors import UserError
from dmfer_jax.loss_options import has_centers, network_options
from dmfer_jax.models.dmfer import Dmfer
from dmfer_jax.models.resnet import BACKBONES

PACKAGE = Path(dmfer_jax.__file__).parent
SHIPPED = sorted((PACKAGE.parent / "configs").glob("*.py"))


def with_value(path: str, value: Any) -> Any:
    config = configs.get_config()
    config.update_from_flattened_dict({path: value})
    return config


def fields(section: str) -> list[str]:
    return list(configs.get_config().to_dict()[section])


def test_base_config_is_valid():
    configs.validate(configs.get_config())


WRONG = {
    "seed": [-1, 2**32],
    "init_normalization": ["vgg", ""],
    "data.dataset": ["fer2013", "", "ferplus/", "folder/my faces", "folder/..", "folder/a/b"],
    "data.protocol": ["votes", "Majority"],  # votes are no label to score against
    "data.train_protocol": ["soft"],
    "data.sampling": ["uniform"],
    "data.image_size": [0, 15],
    "data.channels": [2, 4],
    "data.limit": [-1],
    "data.memory_gib": [-0.5, float("nan")],
    "data.device_gib": [-0.5, float("nan")],
    "data.workers": [0],
    "augment.flip": [-0.1, 1.1, float("nan")],
    "augment.rotation": [-1.0, 181.0],
    "augment.shift": [-0.1, 1.1],
    "augment.scale": [-0.1, 1.0],
    "augment.erase": [-0.1, 1.1],
    "augment.erase_area": [(0.0, 0.2), (0.3, 0.2), (0.1, 1.0), (0.1,), (0.1, 0.2, 0.3), ("a", "b")],
    "augment.brightness": [-0.1, 1.1],
    "augment.contrast": [-0.1, 1.1],
    "augment.mixup": [-0.1, float("nan")],
    "model.backbone": ["resnet101"],
    "model.stem": ["large"],
    "model.stem_stride": [0, 4],
    "model.width": [0.0, -1.0, float("inf")],
    "data.vote_power": [0.0, float("nan"), 1000.0],
    "model.embedding": [0],
    "model.scales": ["all"],
    "model.shallow_stage": [0, 4],
    "model.attention": ["spatial"],
    "model.heads": [0, 3],  # 3 does not divide 2 x 512
    "model.compress": ["pool"],
    "model.dropout": [-0.1, 1.0],
    "model.frozen_stages": [-1, 5],
    "model.dtype": ["float16"],
    "loss.name": ["softmax"],
    "loss.weight": [-0.1],
    "loss.scale": [0.0, -30.0],
    "loss.margin": [-1.1, 1.1],
    "loss.beta": [-1.0],
    "loss.centers": ["parameters"],
    "loss.center_labels": ["majority"],
    "loss.center_rate": [-0.1, 1.5],
    "loss.class_weights": ["inverse"],
    "loss.label_smoothing": [-0.1, 1.0],
    "optimizer.name": ["adam"],
    "optimizer.learning_rate": [-0.1, float("nan"), float("inf")],
    "optimizer.momentum": [-0.1, 1.0],
    "optimizer.weight_decay": [-1e-4],
    "optimizer.layer_decay": [0.0, 1.1, float("nan")],
    "optimizer.warmup_epochs": [-1.0],
    "optimizer.clip_norm": [-1.0],
    "optimizer.sam_rho": [-0.1, float("inf")],
    "optimizer.ema_decay": [-0.1, 1.0],
    "train.epochs": [0],
    "train.batch_size": [0],
    "train.eval_batch_size": [0],
    "train.log_every": [0],
    "train.checkpoint_every": [-1],
    "train.nonfinite": ["ignore"],
    "data.train_splits": [(), ("train+valid",), ("train", "train"), ("",), (5.0,)],
    "data.valid_split": ["", "train+valid", "train[:10%]"],
    "data.test_splits": [("test+train",), ("test", "test"), (5.0,)],
}


@pytest.mark.parametrize(("path", "value"), [(p, v) for p, vs in WRONG.items() for v in vs])
def test_wrong_value_is_an_error_that_names_the_field_and_the_value(path, value):
    with pytest.raises(UserError, match=rf"config\.{path} is {re.escape(repr(value))}"):
        configs.validate(with_value(path, value))


def test_every_field_but_names_and_switches_has_a_wrong_value():
    sections = configs.get_config().to_dict()
    paths = {
        path
        for name, values in sections.items()
        for path in ([f"{name}.{f}" for f in values] if isinstance(values, dict) else [name])
    }
    free = {"data.source", "data.data_dir", "data.drop_classes", "init_from"}
    assert paths - free - {"model.depthwise", "model.flip_average"} == WRONG.keys()


@pytest.mark.parametrize(
    ("section", "said"), [(None, "config has"), ("augment", "config.augment has")]
)
def test_mistyped_field_of_a_config_file_is_refused(section, said):
    config = configs.get_config()
    (config[section] if section else config).flp = 0.3
    with pytest.raises(UserError, match=f"{said} no field 'flp'; its fields are"):
        configs.validate(config)


def test_section_that_was_replaced_by_part_of_itself_is_refused():
    config = with_value("augment", {"flip": 0.0})
    with pytest.raises(UserError, match=r"config\.augment\.brightness is missing; .* it is 0\.2"):
        configs.validate(config)


def test_nothing_is_scored_on_what_it_was_trained_on():
    config = with_value("data.test_splits", ("valid", "test"))
    configs.validate(config)  # a validation split may be scored after training, too
    config.data.train_splits = ("train", "test")
    with pytest.raises(UserError, match=r"both have 'test'; a model must not be scored"):
        configs.validate(config)


def test_heads_divide_the_channels_of_the_scales_in_use():
    config = with_value("model.embedding", 4)  # 8 heads divide 2 x 4 channels, but not 4
    configs.validate(config)
    config.model.scales = "deep"
    with pytest.raises(UserError, match="does not divide the 4 channels"):
        configs.validate(config)
    config.model.attention = "none"
    configs.validate(config)


def test_learned_centers_need_a_loss_that_learns_them():
    config = with_value("loss.centers", "learned")
    configs.validate(config)
    for name in ("none", "cosface", "arcface"):
        config.loss.name = name
        with pytest.raises(
            UserError, match=rf"centers is 'learned', but .* is '{name}', which has"
        ):
            configs.validate(config)


@pytest.mark.parametrize("name", losses.LOSSES)
def test_every_loss_can_be_chosen(name):
    config = with_value("loss.name", name)
    config.loss.centers = "learned" if has_centers(config.loss) else "state"
    configs.validate(config)


def test_losses_have_centers_that_take_them():
    for name, loss in losses.LOSSES.items():
        assert has_centers(with_value("loss.name", name).loss) == ("centers" in loss.inputs)
    assert not has_centers(with_value("loss.name", "none").loss)


def test_rare_classes_are_not_favoured_twice():
    config = with_value("data.sampling", "square_root")
    configs.validate(config)
    config.loss.class_weights = "balanced"
    with pytest.raises(UserError, match="together they favour rare classes twice"):
        configs.validate(config)


def test_angle_of_arcface_is_not_taken_away():
    config = with_value("loss.name", "arcface")
    config.loss.margin = -0.1
    with pytest.raises(UserError, match=r"config\.loss\.margin is -0\.1; .* 0 to 1"):
        configs.validate(config)


def test_power_of_votes_that_are_not_trained_on_is_refused():
    config = with_value("data.vote_power", 2.0)
    with pytest.raises(UserError, match=r"vote_power is for config\.data\.train_protocol=votes"):
        configs.validate(config)
    config.data.train_protocol = "votes"
    configs.validate(config)


@pytest.mark.parametrize("name", ["center_cosine_island", "island"])
def test_repulsion_of_centers_that_it_cannot_move_is_refused(name):
    config = with_value("loss.name", name)
    with pytest.raises(UserError, match=r"set config\.loss\.centers=learned"):
        configs.validate(config)
    config.loss.beta = 0.0
    configs.validate(config)


@pytest.mark.parametrize("name", BACKBONES)
def test_every_backbone_can_be_chosen(name):
    configs.validate(with_value("model.backbone", name))


@pytest.mark.parametrize("name", configs.DATASETS)
def test_every_dataset_can_be_chosen(name):
    configs.validate(with_value("data.dataset", name))


def test_variant_of_a_dataset_is_told_from_its_name():
    configs.validate(with_value("data.dataset", "affectnet/new"))
    assert configs.split_dataset("folder/My_faces-2") == ("folder", "My_faces-2")
    assert configs.split_dataset("ferplus") == ("ferplus", "")


def read_in_package(section: str, field: str) -> bool:
    """Whether any file but config.py reads `config.section.field` or `options.field`."""
    pattern = re.compile(rf"\b(config\.{section}|options|given)\.{field}\b")
    files = (path for path in PACKAGE.rglob("*.py") if path.name != "config.py")
    return any(pattern.search(path.read_text()) for path in files)


@pytest.mark.parametrize("section", ["data", "augment", "optimizer", "train"])
def test_no_option_is_dead(section):
    assert [field for field in fields(section) if not read_in_package(section, field)] == []


def test_no_option_of_the_loss_is_dead():
    by_losses = {field for loss in losses.LOSSES.values() for field in loss.fields}
    dead = [f for f in fields("loss") if f not in by_losses and not read_in_package("loss", f)]
    assert dead == []


def test_every_option_of_the_model_is_an_attribute_of_the_network_and_the_other_way_round():
    own = {"num_classes", "folded", "param_dtype", "parent", "name"}
    given = network_options(configs.get_config())
    assert given.keys() == Dmfer.__dataclass_fields__.keys() - own
    assert given.keys() - set(fields("model")) == {"learned_centers", "attentive", "cosine_scale"}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_shipped_config_is_valid_and_says_its_command(path):
    configs.validate(configs.load_config(str(path)))
    docstring = path.read_text().split('"""')[1]
    assert f"python -m dmfer_jax.train --config=configs/{path.name}" in docstring


@pytest.mark.parametrize("name", ["configs/synthetic.py", "synthetic.py", "./configs/synthetic.py"])
def test_shipped_config_is_found_from_any_folder(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert Path(configs.find_config(name)) == PACKAGE.parent / "configs" / "synthetic.py"


def test_own_file_comes_before_a_shipped_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "synthetic.py").write_text("def get_config():\n  return {'mine': True}\n")
    assert configs.find_config("synthetic.py") == "synthetic.py"
    assert configs.load_config("synthetic.py") == {"mine": True}


@pytest.mark.parametrize("name", ["nonsense.py", "experiments/synthetic.py", "/synthetic.py", ""])
def test_unknown_config_is_an_error_that_lists_those_that_ship(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = ", ".join(f"configs/{path.name}" for path in SHIPPED)
    message = f"there is no config file '{name}'; the ones that ship are {names}"
    with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
        configs.find_config(name)
