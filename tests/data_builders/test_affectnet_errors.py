"""What the AffectNet builder says of wrong or incomplete files."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_builders.affectnet.affectnet_dataset_builder import Builder
from data_builders.common.source_files import SourceFiles
from data_builders.common.survey import Survey
from dmfer_jax.errors import UserError
from tests.data_builders import affectnet_files as tiny
from tests.data_builders.packing import write_folder

FIRST, SECOND = list(tiny.TRAIN)[:2]
EXP, VAL = "train_set/annotations/5_exp.npy", "val_set/annotations/5_val.npy"
IMAGES = "Manually_Annotated_Images"


def survey(files: tiny.Files, place: Path, variant: str = "") -> Survey:
    with SourceFiles(write_folder(files, place)) as source:
        return Builder.survey(source, variant)


def without(files: tiny.Files, *paths: str) -> tiny.Files:
    return {path: content for path, content in files.items() if path not in paths}


def new(**changes: bytes) -> tiny.Files:
    """The new release with the annotation of train image 5, or of another, changed."""
    return {**tiny.new_release(), **changes}


def training(old: str, with_: str, count: int = 1) -> tiny.Files:
    """The old release with a piece of training.csv replaced."""
    files = tiny.old_release()
    text = files["training.csv"].decode()
    assert old in text
    return {**files, "training.csv": text.replace(old, with_, count).encode()}


def row(name: str, label: Any = 0, valence: Any = 0, arousal: Any = 0) -> str:
    return f"\n{name},1,2,3,4,5;6,{label},{valence},{arousal}\n"


def row_of(name: str) -> str:
    return "\n" + tiny.csv_row(name, tiny.TRAIN[name]) + "\n"


TEXT = tiny.npy("3")
WRONG = {
    # Annotations of the new release.
    "expression of 8": (new(**{EXP: tiny.npy("8")}), "5_exp.npy: the expression is 8; .* 0 to 7"),
    "expression of -1": (new(**{EXP: tiny.npy(-1)}), "5_exp.npy: the expression is -1"),
    "half an expression": (new(**{EXP: tiny.npy(2.5)}), "5_exp.npy: the expression is 2.5"),
    "valence of 3": (new(**{VAL: tiny.npy("3")}), "5_val.npy: the value is 3; expected -1 to 1"),
    "not a number": (new(**{EXP: tiny.npy(np.nan)}), "5_exp.npy cannot be .* holds nan, which"),
    "no digits": (new(**{EXP: tiny.npy("happy")}), "5_exp.npy cannot be .*holds 'happy', which"),
    "empty text": (new(**{EXP: tiny.npy("")}), "5_exp.npy cannot be .*holds '', which is no"),
    "empty file": (new(**{EXP: b""}), "5_exp.npy cannot be used: it is no .npy file"),
    "other file": (new(**{EXP: b"PK\3\4"}), "5_exp.npy cannot be used: it is no .npy file"),
    "cut in the magic": (new(**{EXP: TEXT[:7]}), "5_exp.npy cannot be used"),
    "cut in the length": (new(**{EXP: TEXT[:9]}), "5_exp.npy cannot be used"),
    "cut in the header": (new(**{EXP: TEXT[:60]}), "5_exp.npy .* 60 bytes; its header alone"),
    "cut in the data": (new(**{EXP: TEXT[:-1]}), "5_exp.npy .* 3 bytes of data where .* says 4"),
    "more data": (new(**{EXP: TEXT + b"!"}), "5_exp.npy .* 5 bytes of data where .* says 4"),
    "damaged header": (
        new(**{EXP: TEXT.replace(b"'descr'", b"'descr")}),
        "5_exp.npy .*its header is damaged",
    ),
    "unknown version": (new(**{EXP: TEXT[:6] + b"\7" + TEXT[7:]}), "5_exp.npy cannot be used"),
    "two numbers": (new(**{EXP: tiny.npy([1, 2])}), r"5_exp.npy .* array of shape \(2,\) and"),
    "no number": (new(**{EXP: tiny.npy([])}), r"5_exp.npy .* array of shape \(0,\) and"),
    "no character": (new(**{EXP: TEXT[:-4] + b"\xff" * 4}), "5_exp.npy .* text that cannot be"),
    "endless text": (
        new(**{EXP: tiny.npy("9" * 999)}),
        "5_exp.npy .*holds '9{39}, which is no num",
    ),
    "long header": (
        new(**{EXP: b"\x93NUMPY\1\0\x28\x23" + b"(" * 9_000}),
        "5_exp.npy .*its header is damaged [^\n]*$",
    ),
    "complex": (new(**{EXP: tiny.npy(1j)}), "5_exp.npy .* type complex128, not one number"),
    # The sets.
    "nothing": ({"read me.txt": b"hello"}, "not recognised as AffectNet: .*it holds read me.txt"),
    "both releases": (
        {**tiny.new_release(), **tiny.old_release()},
        "both releases .*train_set, val_set; and training.csv, .*--dataset=affectnet/new",
    ),
    "a set twice": (
        {**tiny.new_release(), **{f"b/{p}": c for p, c in tiny.new_release().items()}},
        "holds train_set twice, in 'b/train_set' and in 'train_set'",
    ),
    "two images of a number": (
        new(**{"train_set/images/5.png": b""}),
        "two images for the annotation '5'",
    ),
    "no image at all": (
        {path: content for path, content in new().items() if "/images/" not in path},
        "annotations of AffectNet and none of their images: .*12 annotations N_exp.npy have no",
    ),
    # Lists of the old release.
    "expression of 11": (
        training(row_of(SECOND), row(SECOND, 11)),
        "training.csv, row 3 .*the expression is '11'; expected a whole number from 0 to 10",
    ),
    "expression in words": (training(row_of(SECOND), row(SECOND, "Happy")), "row 3 .*'Happy'"),
    "no expression": (training(row_of(SECOND), row(SECOND, "")), "row 3 .*expression is ''"),
    "valence of 2": (training(row_of(FIRST), row(FIRST, 0, 2)), "row 2 .*valence is '2'; exp"),
    "arousal of -2.5": (training(row_of(FIRST), row(FIRST, 0, 0, -2.5)), "row 2 .*arousal is '-2"),
    "no valence": (training(row_of(FIRST), row(FIRST, 0, "")), "row 2 .*valence is ''"),
    "another header": (
        training("expression", "feeling"),
        "training.csv, row 1: the header is .* lacks expression",
    ),
    "cut row": (training(row_of(FIRST), f"\n{FIRST},1,2\n"), "row 2 .*3 cells; expected 9"),
    "no name": (training(f"\n{FIRST},", "\n,"), "row 2 .*the image has no name"),
    "a row twice": (training(row_of(FIRST), row_of(FIRST)[:-1] + row_of(FIRST)), "stands twice"),
    "a name in both lists": (
        training(row_of(FIRST), row(next(iter(tiny.VALIDATION)))),
        "stands in training.csv and in validation.csv. A model must not",
    ),
    "an image under two names": (
        training(row_of(SECOND), row(FIRST.replace(".jpg", ".JPG"))),
        f"'{IMAGES}/{FIRST}' stands twice in training.csv",
    ),
    "images in archives that are not read": (
        {path: content for path, content in tiny.old_release().items() if path.endswith(".csv")}
        | {"Manually_Annotated.part01.rar": b"Rar!", "Manually_Annotated.zip": b"<html>"},
        "none of their images: .*Unpack Manually_Annotated.part01.rar, Manually_Annotated.zip your",
    ),
    "a list twice": (
        {**tiny.old_release(), "copy/training.csv": b""},
        "holds training.csv 2 times: training.csv, copy/training.csv",
    ),
    "an image twice": (
        {f"a/{p}" if p.startswith("Man") else p: c for p, c in tiny.old_release("Man").items()}
        | {f"b/Man/{FIRST}": b""},
        "holds the image 103/.* in a/Man/103 and in b/Man/103",
    ),
    "binary list": (
        {**tiny.old_release(), "training.csv": b"\xff\xfe\0"},
        "training.csv cannot be read as a csv file",
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_files_are_refused_with_their_place(wrong: str, tmp_path: Path):
    files, message = WRONG[wrong]
    with pytest.raises(UserError, match=f"(?s){message}"):
        survey(files, tmp_path)


def test_pickles_are_never_read(tmp_path: Path):
    class Trap:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "it ran",))

    files = new(**{EXP: tiny.npy(np.array(Trap(), object))})
    with pytest.raises(UserError, match=r"5_exp.npy .* a Python object, which nothing but pickle"):
        survey(files, tmp_path / "in")
    assert not (tmp_path / "it ran").exists()


@pytest.mark.parametrize(("variant", "wanted"), [("new", "train_set/"), ("old", "training.csv")])
def test_release_that_is_not_there_is_named(variant: str, wanted: str, tmp_path: Path):
    other = tiny.old_release() if variant == "new" else tiny.new_release()
    with pytest.raises(UserError, match=rf"as AffectNet \({variant}\): expected {wanted}"):
        survey(other, tmp_path, variant)


def test_images_and_annotations_without_each_other_are_problems(tmp_path: Path):
    files = without(tiny.new_release(), EXP, "train_set/images/7.jpg", "val_set/images/1.jpg")
    found = survey(files, tmp_path)
    told = " ".join(found.problems)
    assert "1 annotations N_exp.npy have no image in train_set/images: N = 7" in told
    assert "1 annotations N_exp.npy have no image in val_set/images: N = 1" in told
    assert "1 images have no annotation N_exp.npy in train_set/annotations: N = 5" in told
    assert len(found.problems) == 3
    assert {f"train_set/{number}.jpg" for number in (5, 7)}.isdisjoint(found.splits["train"].names)
    assert len(found.splits["train"]) == 10


def test_listed_image_that_is_missing_is_a_problem(tmp_path: Path):
    found = survey(without(tiny.old_release(), f"{IMAGES}/{FIRST}"), tmp_path)
    assert len(found.problems) == 1
    assert f"training.csv: 1 images are listed and missing: {FIRST}" in found.problems[0]
    assert len(found.splits["train"]) == 9


def test_other_files_beside_the_images_are_no_images(tmp_path: Path):
    found = survey(new(**{"train_set/images/5.txt": b"", "val_set/images/a.md": b""}), tmp_path)
    assert found.problems == []
    assert len(found.splits["train"]) == len(tiny.NEW_TRAIN_LABELS)


def test_image_that_no_list_has_is_a_problem(tmp_path: Path):
    files = {**tiny.old_release(), f"{IMAGES}/103/zz.jpg": b"", f"{IMAGES}/999/new.PNG": b""}
    found = survey(files, tmp_path)
    assert len(found.problems) == 1
    assert (
        f"2 images stand in neither list: {IMAGES}/103/zz.jpg, {IMAGES}/999/new.PNG"
        in found.problems[0]
    )


def test_other_images_of_the_owners_are_no_problem(tmp_path: Path):
    files = {**tiny.old_release(), "Automatically_Annotated_Images/103/zz.jpg": b""}
    assert survey(files, tmp_path).problems == []


def test_copies_beside_the_owners_folder_are_left_alone(tmp_path: Path):
    files = {**tiny.old_release(), f"aligned/{FIRST}": b"a crop under the same name"}
    rows = survey(files, tmp_path).splits["train"]
    assert rows.files[rows.names.index(FIRST)] == f"{IMAGES}/{FIRST}"


@pytest.mark.parametrize("box", [(1, 2, 0, 4), (1, 2, 3, -4), ("NULL", 2, 3, 4), (1, "inf", 3, 4)])
def test_broken_face_box_is_a_problem_where_it_is_needed(box: Any, tmp_path: Path):
    broken = "\n" + tiny.csv_row(SECOND, tiny.TRAIN[SECOND], box) + "\n"
    files = training(row_of(SECOND), broken)
    assert survey(files, tmp_path).problems == []
    found = survey(files, tmp_path, "old_cropped")
    assert len(found.problems) == 1
    assert "1 rows have no usable face box" in found.problems[0]
    assert found.problems[0].endswith(f": row 3 ({SECOND})")
    assert SECOND not in found.splits["train"].names


def test_face_box_outside_its_image_stops_the_build(tmp_path: Path):
    outside = "\n" + tiny.csv_row(SECOND, tiny.TRAIN[SECOND], (100, 4, 24, 32)) + "\n"
    write_folder(training(row_of(SECOND), outside), tmp_path / "in")
    with SourceFiles(tmp_path / "in") as files:
        builder = Builder.from_survey(files, Builder.survey(files, "old_cropped"), tmp_path / "out")
        with pytest.raises(UserError, match=r"face box \(100, 4, 124, 36\) is empty, or lies"):
            builder.download_and_prepare()
    assert not (tmp_path / "out").exists()


def test_images_without_any_annotation_are_a_problem(tmp_path: Path):
    files = tiny.new_release()
    kept = {path: files[path] for path in files if not path.startswith("val_set/annotations/")}
    assert survey(files, tmp_path / "all").problems == []
    (problem,) = survey(kept, tmp_path / "some").problems
    number = sum(path.startswith("val_set/images/") for path in files)
    assert problem == f"val_set/images: {number} images have no folder annotations/ beside them"


def test_a_name_that_is_no_text_is_refused(tmp_path: Path):
    files = tiny.new_release()
    name = "9\udce9"
    files |= {
        f"train_set/images/{name}.jpg": b"",
        f"train_set/annotations/{name}_exp.npy": files[EXP],
    }
    with pytest.raises(
        UserError, match=r"the file name 'train_set/9\\udce9.jpg' is in no encoding"
    ):
        survey(files, tmp_path)


@pytest.mark.parametrize("release", [tiny.new_release, tiny.old_release])
def test_problems_are_the_same_wherever_the_source_lies(release, tmp_path: Path):
    files = release()
    lost = next(path for path in files if path.endswith((".jpg", ".png")))
    first, second = (survey(without(files, lost), tmp_path / place) for place in ("a", "b"))
    assert first.problems == second.problems != []
