"""Grids: each variant is an experiment that can be run, and a faulty grid is refused by name."""

import csv
from pathlib import Path

import pytest

from dmfer_jax import ablation, grids
from dmfer_jax import config as configs
from dmfer_jax.errors import UserError
from dmfer_jax.grids import GRIDS, Grid

RESULTS = Path(__file__).parents[1] / "results"


@pytest.mark.parametrize("grid", GRIDS)
def test_every_variant_that_ships_is_valid_whatever_loss_the_config_has(grid):
    config = configs.get_config()
    for name, fields in GRIDS[grid].variants.items():
        configs.validate(grids.apply(config, name, fields))
    config.loss.name, config.loss.centers = "island", "learned"
    for name, fields in GRIDS[grid].variants.items():
        configs.validate(grids.apply(config, name, fields))
    assert config.loss.name == "island"  # what is applied changes a copy


def test_components_add_one_part_after_the_other():
    found = [
        grids.apply(configs.get_config(), name, fields)
        for name, fields in GRIDS["components"].variants.items()
    ]
    parts = [(one.model.scales, one.model.attention, one.loss.name) for one in found]
    assert parts == [
        ("deep", "none", "none"),
        ("both", "none", "none"),
        ("both", "channel", "none"),
        ("both", "channel", "center_cosine"),
        ("both", "squeeze_excite", "center_cosine"),
    ]


def test_centers_of_the_method_live_where_the_config_says():
    config = configs.get_config()
    for centers in ("state", "learned"):
        config.loss.centers = centers
        for grid, name in (("components", "+center_cosine"), ("losses", "center_cosine")):
            found = grids.apply(config, name, GRIDS[grid].variants[name])
            assert found.loss.centers == centers


def test_sensitivity_changes_one_field_at_a_time():
    for fields in GRIDS["sensitivity"].variants.values():
        assert len(fields) <= 1
    assert [name for name in GRIDS["sensitivity"].variants if name.startswith("weight")] == [
        "weight=0.01",
        "weight=0.03",
        "weight=0.1",
        "weight=0.3",
        "weight=1",
    ]


@pytest.mark.parametrize(
    "path", sorted(RESULTS.glob("*/grid.py")), ids=lambda path: path.parent.name
)
def test_grids_in_results_are_for_the_code_of_today(path):
    with (path.parent / "runs.csv").open(newline="") as file:
        known = {row["variant"]: row["experiment"] for row in csv.DictReader(file)}
    variants = grids.load_grid(str(path)).variants
    assert known.keys() == variants.keys()
    for name, fields in variants.items():
        config = configs.load_config(f"configs/{known[name].partition('-')[0]}.py")
        configs.validate(grids.apply(config, name, fields))


def test_grid_of_ones_own_is_read_from_its_file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "from dmfer_jax.grids import Grid\n"
        "def get_grid():\n"
        "    return Grid('plain', {'plain': {}, 'erase': {'augment.erase': 0.1}})\n"
    )
    assert grids.load_grid(str(path)) == Grid(
        "plain", {"plain": {}, "erase": {"augment.erase": 0.1}}
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"without get_grid\(\)"),
        ("get_grid = lambda: {}", r"whose get_grid\(\) returns dict"),
        ("get_grid = lambda: Grid('a', {'b': {}})", r"baseline 'a' is none of the variants b"),
        (
            "get_grid = lambda: Grid('a', {'a': {}, 'b': {}}, {'b': 'c'})",
            r"the step from 'c' to 'b' is not one from one variant to another; there are a, b",
        ),
        ("get_grid = lambda: Grid('a', {'a': {}, '../b': {}})", r"'\.\./b' cannot be the name"),
        ("get_grid = lambda: Grid('a', {'a': {}, 'b,c': {}})", r"'b,c' cannot be the name"),
        ("get_grid = lambda: Grid('a', {'a': {}, 3: {}})", r"variant 3 is \{\}; expected a name"),
        (
            "get_grid = lambda: Grid('a', {'a': 'b'})",
            r"variant 'a' is 'b'; expected a name, and a d",
        ),
    ],
)
def test_file_that_is_no_grid_is_refused(tmp_path, text, message):
    path = tmp_path / "mine.py"
    path.write_text(f"from dmfer_jax.grids import Grid\n{text}\n")
    with pytest.raises(UserError, match=message):
        grids.load_grid(str(path))


def test_unknown_grid_is_answered_with_those_there_are():
    with pytest.raises(UserError, match=r"no grid 'part'; .* components, losses, sensitivity"):
        grids.load_grid("part")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"loss.margni": 0.1}, r"'x': there is no config field 'loss\.margni'.* 'loss\.margin'\?"),
        ({"loss.margin": "wide"}, r"'x': config\.loss\.margin cannot be 'wide'"),
        ({"loss.margin": 3.0}, r"'x': config\.loss\.margin is 3\.0; it must be -1 to 1"),
    ],
)
def test_variant_that_makes_no_sense_is_named(fields, message):
    with pytest.raises(UserError, match=message):
        grids.apply(configs.get_config(), "x", fields)


def test_weights_of_one_name_in_two_folders_are_two_starts(tmp_path):
    path = tmp_path / "starts.py"
    path.write_text(
        "from dmfer_jax.grids import Grid\n"
        "get_grid = lambda: Grid('a', {'a': {}, 'b': {'init_from': '/b/face'}})\n"
    )

    def plan(start: str) -> ablation.Ablation:
        config = configs.get_config()
        config.init_from = start
        return ablation.plan("configs/ferplus.py", config, str(path), 1, tmp_path / "out", ())

    assert plan("/a/face").same == ()
    assert plan("/b/face").same == ("b",)
