"""A user's images divided by a fraction: by name, and by who is on them."""

from collections import Counter

import pytest

from data_builders.folder.division import divide
from dmfer_jax.errors import UserError
from tests.data_builders.folder_files import (
    person,
    split_of,
    survey,
    write,
    write_classes,
    write_people,
    write_table,
)

# Splits by a fraction.


def test_shares_are_met_in_every_class(tmp_path):
    found = survey(write_classes(tmp_path, "sad", "fear", images=300))

    for split, expected in (("train", 210), ("valid", 30), ("test", 60)):
        # Four standard deviations of a share of 300: at most 4 * sqrt(300 * .3 * .7) = 32.
        assert all(abs(count - expected) < 32 for count in found.counts(split))
    assert len(split_of(found)) == 600
    assert "Faces of one person may stand in several splits" in found.notes[0]


def test_fractions_are_options_and_zero_is_none(tmp_path):
    write_classes(tmp_path, "sad", "fear", images=100)

    found = survey(tmp_path, test_fraction=0.5, valid_fraction=0)
    assert list(found.splits) == ["train", "test"]
    assert all(30 <= count <= 70 for count in found.counts("test"))
    assert list(survey(tmp_path, test_fraction=0, valid_fraction=0).splits) == ["train"]


def test_image_that_is_added_moves_no_other(tmp_path):
    before = split_of(survey(write_classes(tmp_path, "sad", "fear", images=60)))
    write(tmp_path, *(f"sad/new{i}.png" for i in range(30)), *(f"happy/{i}.png" for i in range(9)))
    after = split_of(survey(tmp_path))

    assert {name: after[name] for name in before} == before
    assert len(set(before.values())) == 3


def test_division_depends_on_names_alone():
    names = [f"sad/{i}.png" for i in range(50)]
    shares = {"test": 0.2, "valid": 0.1}

    assert divide(names, shares) == divide(reversed(names), shares)


def test_small_class_has_an_image_in_every_split(tmp_path):
    found = survey(write_classes(tmp_path, "sad", "fear", "anger", "disgust", images=3))

    assert {split: found.counts(split) for split in found.splits} == {
        "train": (1, 1, 1, 1),
        "valid": (1, 1, 1, 1),
        "test": (1, 1, 1, 1),
    }


def test_first_records_are_of_every_class(tmp_path):
    found = survey(write_classes(tmp_path, "sad", "fear", "anger", images=100))

    assert set(found.splits["train"].labels[:20].tolist()) == {0, 1, 2}


# Splits by group.


def test_no_group_stands_in_two_splits(tmp_path):
    found = survey(write_people(tmp_path))

    splits_of: dict[str, set[str]] = {}
    for name, split in split_of(found).items():
        splits_of.setdefault(person(name), set()).add(split)
    assert len(splits_of) == 40
    assert all(len(splits) == 1 for splits in splits_of.values())
    people = Counter(split for (split,) in splits_of.values())
    # 20 % of 40 people is 8, four standard deviations 10.
    assert 1 <= people["test"] <= 18
    assert 1 <= people["valid"] <= 12
    assert f"test {people['test']} groups, {people['test'] * 4} images" in found.notes[0]


def test_image_of_a_known_person_goes_where_the_person_is(tmp_path):
    before = split_of(survey(write_people(tmp_path)))
    write(tmp_path, "sad/7_new.png", "fear/99_0.png")
    with (tmp_path / "groups.csv").open("a") as table:
        table.write("sad/7_new.png,person 7\nfear/99_0.png,somebody new\n")
    after = split_of(survey(tmp_path))

    assert after["sad/7_new.png"] == before["sad/7_0.png"]
    assert {name: after[name] for name in before} == before


def test_three_groups_are_enough(tmp_path):
    found = survey(write_people(tmp_path, people=3))

    assert {split: len(rows) for split, rows in found.splits.items()} == {
        "train": 4, "valid": 4, "test": 4,
    }  # fmt: skip


def test_table_of_groups_may_be_named_and_come_from_windows(tmp_path):
    source = write_people(tmp_path / "source")
    expected = split_of(survey(source))
    rows = (source / "groups.csv").read_text().replace("/", "\\").splitlines()
    (source / "groups.csv").unlink()
    rows = ["\ufeffnumber,Image,GROUP", *(f"{i},{row}" for i, row in enumerate(rows[1:]))]
    (source / "lists").mkdir()
    (source / "lists" / "who.csv").write_text("\r\n".join(rows))

    found = survey(source, groups="lists/who.csv")

    assert split_of(found) == expected
    with pytest.raises(UserError, match=r"holds no 'other\.csv'.*it holds fear/, lists/, sad/"):
        survey(source, groups="other.csv")


def test_group_in_train_and_test_of_the_source_is_a_problem(tmp_path):
    names = [f"train/{c}/{p}_1.png" for c in "ab" for p in "123"]
    names += ["val/a/4_1.png", "val/b/5_1.png", "test/a/3_2.png", "test/b/6_1.png"]
    write_table(write(tmp_path, *names), names)

    (problem,) = survey(tmp_path).problems
    assert "(groups person 3)" in problem


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.replace("sad/7_0.png,person 7\n", ""), r"no row for sad/7_0\.png"),
        (lambda t: t + "sad/nobody.png,x\n", r"row 162 .*'sad/nobody\.png' is no image"),
        (lambda t: t + "7_0.png,person 7\n", r"'7_0\.png' stands for several images"),
        (lambda t: t + "sad/7_0.png,person 8\n", r"of group 'person 8', and of 'person 7'"),
        (lambda t: t.replace("sad/7_0.png,person 7", "sad/7_0.png,"), "has no group"),
        (lambda t: t.replace("group", "who"), "lacks group; expected image,group"),
    ],
)
def test_wrong_table_of_groups_is_refused(tmp_path, change, message):
    table = write_people(tmp_path) / "groups.csv"
    table.write_text(change(table.read_text()))

    with pytest.raises(UserError, match=message):
        survey(tmp_path)


def test_two_tables_of_groups_are_refused(tmp_path):
    source = write_people(tmp_path)
    (source / "sad" / "groups.csv").write_text("image,group\n")

    with pytest.raises(UserError, match=r"groups\.csv, sad/groups\.csv"):
        survey(source)


def test_class_whose_people_all_left_train_is_refused(tmp_path):
    everybody = split_of(survey(write_people(tmp_path / "all", people=12)))
    tested = next(name for name, split in everybody.items() if split == "test")
    names = [*(f"sad/{p}_0.png" for p in range(12)), f"fear/{person(tested)}_0.png"]
    write_table(write(tmp_path / "some", *names), names)

    with pytest.raises(UserError, match="no image of fear is left to train on"):
        survey(tmp_path / "some")
