"""What the RAF-DB builder says about files that are incomplete, contradictory or something else."""

from pathlib import Path

import pytest

from data_builders.common.source_files import SourceFiles
from data_builders.common.survey import Survey
from data_builders.rafdb.listing import Entry, check_entries
from data_builders.rafdb.rafdb_dataset_builder import Builder
from dmfer_jax.errors import UserError
from dmfer_jax.labels import Expression
from tests.data_builders import rafdb_files as tiny

LIST = "EmoLabel/list_patition_label.txt"
ONE_TO_SEVEN = [str(n) for n in range(1, 8)]


def survey(source: Path, **options: str) -> Survey:
    with SourceFiles(source) as files:
        return Builder.survey(files, **options)


def list_with_line(line: str) -> tiny.Files:
    """The list form, with another third line."""
    lines = tiny.list_text().decode().splitlines()
    lines[2] = line
    return {**tiny.list_form(), LIST: "\n".join(lines).encode()}


def csv_with(old: str, new: str) -> tiny.Files:
    files = tiny.csv_form()
    return {
        **files,
        "train_labels.csv": files["train_labels.csv"].replace(old.encode(), new.encode()),
    }


def folders_with(*paths: str) -> tiny.Files:
    return {**tiny.folder_form(ONE_TO_SEVEN), **dict.fromkeys(paths, b"an image")}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        # The list.
        (list_with_line("train_00003.jpg 8"), r"row 3: the label is '8'.* from 1 to 7"),
        (list_with_line("train_00003.jpg 0"), r"row 3: the label is '0'.* from 1 to 7"),
        (list_with_line("train_00003.jpg"), r"row 3: found 'train_00003.jpg'; .* such as 'train"),
        (list_with_line("train_00003.jpg 5 5"), r"row 3: found 'train_00003.jpg 5 5'"),
        (list_with_line("<html> login"), r"row 3: found '<html> login'"),
        (list_with_line("../train_00003.jpg 5"), r"row 3: found '../train_00003.jpg 5'"),
        (list_with_line("train_00001.jpg 5"), r"row 3: image 'train_00001' .*row 1 as"),
        (list_with_line("train_00001_aligned.jpg 1"), r"row 3: image 'train_00001' .*row 1 as"),
        ({**tiny.list_form(), LIST: b"\n"}, r"list_patition_label.txt has no line"),
        ({**tiny.list_form(), LIST: b"\xff\xfe\x00"}, r"list_patition_label.txt is no text"),
        (
            {**tiny.list_form(), "list_partition_label.txt": b"train_00001.jpg 5"},
            r"list_partition_label.txt and .*list_patition_label.txt differ",
        ),
        ({LIST: tiny.list_text()}, r"none of its 21 images \(train_00001_aligned.jpg, .*EmoLabel/"),
        # The csv files.
        (csv_with("image,label", "file,label"), r"row 1: the header is 'file,label'.* image"),
        (csv_with("train_00002_aligned.jpg,1", "train_00002_aligned.jpg,9"), r"row 3 .*'9'"),
        (csv_with("train_00002_aligned.jpg,1", "train_00002_aligned.jpg"), r"row 3 .*1 cells"),
        (
            csv_with("train_00002_aligned.jpg,1", "train_00002_aligned.jpg,2"),
            r"'train_00002' is fear, but .*train/1/.* class folder of .*--folder_order=manet",
        ),
        (csv_with("train_00002_aligned.jpg", ""), r"row 3 .*: the image has no name"),
        (
            csv_with("train_00002_aligned.jpg,1", "test_0001_aligned.jpg,7"),
            r"'test_0001' stands in train, and its name says that it is of test",
        ),
        ({**tiny.csv_form(), "test_labels.csv": b"image,label\n"}, r"test_labels.csv has a header"),
        ({**tiny.csv_form(), "x/test_labels.csv": b""}, r"two files of one name"),
        # Class folders.
        (folders_with("test/1/train_00002_aligned.jpg"), r"of train, the other of test: a model"),
        (folders_with("train/2/train_00002_aligned.jpg"), r"'train_00002' .* and in .*train/1/"),
        (folders_with("test/1/train_00099.jpg"), r"'train_00099' stands in test, .* of train"),
        (folders_with("valid/1/test_0099.jpg"), r"'test_0099' stands in valid, .* it is of test"),
        (folders_with("train/8/a.jpg"), r"class folders 1, .*, 8; expected 1 to 7, .*What is 8"),
        (folders_with("train/0/a.jpg"), r"class folders 0, 1, .*7; .*What is 7"),
        (folders_with("train/happy/a.jpg"), r"What is happy"),
        (folders_with("train/other/a.jpg"), r"train/other/a.jpg lies in no class folder"),
        (folders_with("train/a.jpg"), r"train/a.jpg lies in no class folder"),
        (folders_with("train/1/more/a.jpg"), r"train/1/more/a.jpg lies in no class folder"),
        (folders_with("copy/train/1/a.jpg"), r"several places: '', 'copy'"),
        ({"train/contempt/a.jpg": b"", "train/fear/b.jpg": b""}, r"contempt, which RAF-DB does"),
        (
            tiny.folder_form([str(n) for n in range(7)], tiny.MANET_ORDER),
            r"fits neither. raf \(0 surprise, .* manet \(0 neutral, .*say --folder_order=raf or",
        ),
        # Something else.
        ({"readme.txt": b"", "photos/a.jpg": b""}, r"RAF-DB: it holds photos/, readme.txt"),
        (tiny.under("compound", tiny.list_form()), r"The compound set is not read"),
    ],
)  # fmt: skip
def test_error_says_what_is_wrong_and_where(tmp_path: Path, files: tiny.Files, message: str):
    with pytest.raises(UserError, match=message):
        survey(tiny.write(tmp_path, files))


def test_other_images_of_one_name_are_no_copy_of_rafdb():
    entries = [Entry("0", "train", Expression.SADNESS, f"train/{i}/0.jpg") for i in (1, 2)]
    with pytest.raises(UserError, match=r"has none of RAF-DB's names.*dataset=folder/rafdb"):
        check_entries(entries)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variant": "original"}, r"no original images, only aligned ones. .*rafdb/aligned"),
        ({"variant": "cropped"}, r"no variant 'cropped'; it has aligned, original, orig"),
        ({"folder_order": "manet"}, r"Looked for train/1/"),
        ({"folder_order": "mine"}, r"folder_order is 'mine'; it can be raf, manet"),
    ],
)  # fmt: skip
def test_option_that_does_not_fit_the_source_is_refused(
    tmp_path: Path, options: dict[str, str], message: str
):
    with pytest.raises(UserError, match=message):
        survey(tiny.write(tmp_path, tiny.list_form()), **options)


def test_cropping_without_any_box_is_refused(tmp_path: Path):
    source = tiny.write(tmp_path, tiny.list_form(kinds=("original",)))

    with pytest.raises(UserError, match=r"no boxes of faces .*boundingbox.zip"):
        survey(source, variant="original_cropped")


# What stops a build unless mismatches are allowed.


def test_images_listed_and_missing_and_the_reverse_are_problems_and_left_out(tmp_path: Path):
    files = tiny.list_form()
    del files["Image/aligned/test_0003_aligned.jpg"]
    files["Image/aligned/test_0099_aligned.jpg"] = b"an image"
    files["Image/logo.png"] = b"not in a folder of faces"

    found = survey(tiny.write(tmp_path, files))

    assert found.problems == [
        "Images that are listed and not there: test_0003.",
        "Images that are there and not listed, left out: Image/aligned/test_0099_aligned.jpg.",
    ]
    assert list(found.splits["test"].names) == [f"test_{n:04}.jpg" for n in (1, 2, 4, 5, 6, 7)]


def test_missing_aligned_image_is_not_replaced_by_the_original_one(tmp_path: Path):
    files = tiny.list_form(kinds=("aligned", "original"))
    del files["Image/aligned/test_0003_aligned.jpg"]

    assert survey(tiny.write(tmp_path, files)).problems == [
        "Images that are listed and not there: test_0003."
    ]


def test_source_without_test_images_is_a_problem(tmp_path: Path):
    train = {path: data for path, data in tiny.csv_form().items() if "test" not in path}

    found = survey(tiny.write(tmp_path, train))

    assert found.problems == ["There is no image of test."]
    assert set(found.splits) == {"train", "valid"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"1 2 3", "holds 3 numbers; expected 5 lines of x and y, then gender, race, age_group"),
        (b"1 2 3 4 5 6 7 8 9 x 0 0 0", "found 'x'; expected a number"),
        (b"1 2 3 4 5 6 7 8 9 nan 0 0 0", "found 'nan'; expected a number"),
        (b"1 2 3 4 5 6 7 8 9 1e39 0 0 0", "found '1e39'; expected a number of pixels"),
        (b"1 2 3 4 5 6 7 8 9 10 3 0 0", "the gender is '3'; expected a whole number from 0 to 2"),
        (b"1 2 3 4 5 6 7 8 9 10 0 0 5", "the age_group is '5'; expected a whole number from 0"),
    ],
)  # fmt: skip
def test_annotation_that_cannot_be_read_is_a_problem(tmp_path: Path, content: bytes, message: str):
    files = {**tiny.list_form(), **tiny.annotations()}
    files["Annotation/manual/test_0002_manu_attri.txt"] = content

    found = survey(tiny.write(tmp_path, files))

    (problem,) = found.problems
    assert "1 annotations cannot be read" in problem
    assert "test_0002_manu_attri.txt" in problem
    assert message in problem
    assert found.splits["test"].fields["gender"][1] == -1  # the image stays


@pytest.mark.parametrize("content", [b"1 2 3", b"9 2 3 4", b"1 9 3 4", b"1 2 inf 4", b"[1,2,3,4]"])
def test_box_that_cannot_be_read_is_a_problem_and_its_image_left_out(
    tmp_path: Path, content: bytes
):
    files = {**tiny.list_form(kinds=("original",)), **tiny.annotations()}
    files["Annotation/boundingbox/test_0002_boundingbox.txt"] = content
    del files["Annotation/boundingbox/test_0003_boundingbox.txt"]

    found = survey(tiny.write(tmp_path, files), variant="original_cropped")

    assert found.problems[0] == "Images without a box, left out: test_0003."
    assert "1 boxes cannot be read" in found.problems[1]
    rows = found.splits["test"]
    assert list(rows.names) == [f"test_{n:04}.jpg" for n in (1, 4, 5, 6, 7)]
    assert rows.boxes is not None
    assert rows.boxes.shape == (5, 4)
    assert rows.fields["age_group"][1] == tiny.KEYS.index("test_0004") % 5  # still joined by name


# What a user is told.


def test_image_in_two_places_is_taken_from_the_owners_folder_and_noted(tmp_path: Path):
    files = {**tiny.list_form(), "Image/a/test_0001_aligned.jpg": b"another"}

    found = survey(tiny.write(tmp_path, files))

    assert found.splits["test"].files[0] == "Image/aligned/test_0001_aligned.jpg"
    assert (
        "Images that lie in a second place, not taken: Image/a/test_0001_aligned.jpg."
        in found.notes
    )


def test_images_that_nothing_says_are_aligned_are_noted(tmp_path: Path):
    found = survey(tiny.write(tmp_path, tiny.folder_form(ONE_TO_SEVEN, suffix="")))

    assert any(
        "whether 21 images are aligned; they are taken to be" in note for note in found.notes
    )


def test_original_images_beside_aligned_ones_are_noted(tmp_path: Path):
    found = survey(tiny.write(tmp_path, tiny.list_form(kinds=("aligned", "original"))))

    assert found.variant == "aligned"
    assert "There are original images as well: --dataset=rafdb/original builds them." in found.notes


def test_original_images_alone_are_taken(tmp_path: Path):
    assert survey(tiny.write(tmp_path, tiny.list_form(kinds=("original",)))).variant == "original"


@pytest.mark.parametrize("path", ["training/fun/train_00001.jpg", "Val/train_00001.jpg"])
def test_image_in_no_class_folder_is_noticed_whatever_the_split_is_called(path, tmp_path: Path):
    folders = {f"{path.split('/')[0]}/{n}/train_000{n}0.jpg": b"an image" for n in ONE_TO_SEVEN}
    with pytest.raises(UserError, match=f"{path} lies in no class folder"):
        survey(tiny.write(tmp_path, folders | {path: b"an image"}))


def test_manets_order_without_its_ends_could_begin_anywhere(tmp_path: Path):
    def write(numbers: range, place: str) -> Path:
        images = {f"train/{n}/train_{i}{n:03}.jpg": b"1" for n in numbers for i in range(2)}
        return tiny.write(tmp_path / place, images)

    for numbers in (range(7), range(1, 8)):
        found = survey(write(numbers, str(numbers.start)), folder_order="manet")
        assert found.counts("train+valid") == (2,) * 7
    with pytest.raises(UserError, match="1, 2, 3, 4, 5, 6, and whether they count from 0 or fr"):
        survey(write(range(1, 7), "six"), folder_order="manet")


def test_numbers_without_end_are_no_class(tmp_path: Path):
    images = {f"train/{'1' * 200}/train_00001.jpg": b"1"}
    with pytest.raises(UserError, match="is not recognised as RAF-DB"):
        survey(tiny.write(tmp_path, images))
