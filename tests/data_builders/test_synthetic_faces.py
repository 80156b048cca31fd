"""The embedded faces: the same from any process, balanced, within range, and told apart."""

import collections
import concurrent.futures
import io
import multiprocessing
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from data_builders.synthetic_faces.contact_sheet import contact_sheet
from data_builders.synthetic_faces.difficulty import Difficulty
from data_builders.synthetic_faces.expression import draw_resting_face, draw_units, shape_face
from data_builders.synthetic_faces.face import SPLITS, draw_face, draw_records
from data_builders.synthetic_faces.head import Head, HeadShape, Pose
from data_builders.synthetic_faces.occluders import OCCLUSIONS
from data_builders.synthetic_faces.synthetic_faces_dataset_builder import Builder, FacesConfig
from dmfer_jax.labels import EXPRESSION_NAMES, Expression

_CALM = Difficulty(action_unit_spread=0, asymmetry=0, resting_noise=0, resting_shape=0)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    builder = Builder(
        config="tiny", data_dir=str(tmp_path_factory.mktemp("faces")), file_format="array_record"
    )
    builder.download_and_prepare()
    return builder


def test_face_does_not_depend_on_the_faces_drawn_before_it():
    in_order = draw_records("train", range(6))
    backwards = draw_records("train", range(5, -1, -1))
    assert in_order == backwards[::-1]


def test_faces_do_not_depend_on_the_process_that_draws_them():
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, context) as pool:
        elsewhere = pool.submit(draw_records, "test_occlusion", range(4)).result()
    assert elsewhere == draw_records("test_occlusion", range(4))


def test_seed_split_and_index_each_change_the_face():
    images = [
        draw_face("train", 3).image,
        draw_face("train", 3, seed=1).image,
        draw_face("valid", 3).image,
        draw_face("train", 4).image,
    ]
    for i in range(4):
        for j in range(i):
            assert np.abs(images[i].astype(int) - images[j]).mean() > 5


@pytest.mark.parametrize("split", SPLITS)
def test_attributes_are_in_the_range_of_the_split(split):
    for face in (draw_face(split, index) for index in range(24)):
        assert face.image.shape == (64, 64, 3)
        assert face.image.dtype == np.uint8
        assert abs(face.roll) <= 12
        beyond = max(abs(face.yaw), abs(face.pitch))
        assert 30 < beyond <= 45 if split == "test_pose" else beyond <= 20
        assert (face.occlusion != "none") == (split == "test_occlusion")
        assert face.occlusion in OCCLUSIONS
        assert 0 <= face.intensity <= 1
        assert (face.intensity == 0) == (face.label == Expression.NEUTRAL)


def test_classes_and_occlusions_are_balanced():
    # 40 is the least number that both 8 expressions and 5 occluders divide.
    faces = [draw_face("test_occlusion", index) for index in range(40)]
    labels = collections.Counter(face.label for face in faces)
    assert labels == dict.fromkeys(Expression, 5)
    kinds = collections.Counter(face.occlusion for face in faces)
    assert kinds == dict.fromkeys(OCCLUSIONS[1:], 8)


def test_classes_do_not_come_in_one_fixed_order():
    labels = [draw_face("train", index).label for index in range(16)]
    assert labels[:8] != labels[8:]


def test_only_the_expression_changes_when_another_one_is_asked_for():
    faces = [draw_face("train", 1, expression=e, intensity=1.0) for e in Expression]
    assert [face.label for face in faces] == list(Expression)
    assert len({(face.yaw, face.pitch, face.roll, face.quality) for face in faces}) == 1


def test_strong_expressions_of_one_person_differ_from_each_other():
    clean = Difficulty(noise=0.5, blur_chance=0, low_resolution_chance=0, grey_chance=0)
    images = [
        draw_face("train", 2, difficulty=clean, expression=e, intensity=1.0).image.astype(int)
        for e in Expression
    ]
    for i in range(8):
        for j in range(i):
            # Moving parts cover about a tenth of the picture; edges of them differ strongly.
            changed = (np.abs(images[i] - images[j]).max(axis=2) > 24).mean()
            assert changed > 0.015, (Expression(i), Expression(j))


def _shape(expression, intensity):
    rng = np.random.default_rng(0)
    rest = draw_resting_face(rng, _CALM)
    return shape_face(draw_units(rng, expression, intensity, _CALM), rest)


def test_action_units_move_the_parts_the_way_they_move_on_people():
    neutral = _shape(Expression.NEUTRAL, 0.0)
    happy, sad = _shape(Expression.HAPPINESS, 1.0), _shape(Expression.SADNESS, 1.0)
    surprised, angry = _shape(Expression.SURPRISE, 1.0), _shape(Expression.ANGER, 1.0)
    contempt = _shape(Expression.CONTEMPT, 1.0)
    # y points down: a raised corner or brow has the smaller y.
    assert (happy.corner_y < neutral.corner_y).all()
    assert (sad.corner_y > neutral.corner_y).all()
    assert (surprised.brow < neutral.brow).all()
    assert (surprised.lid_upper > neutral.lid_upper).all()
    assert (angry.brow[:, 0] > neutral.brow[:, 0]).all()
    # Slanted brows: the inner ends rise above the outer ones.
    assert (sad.brow[:, 0] < sad.brow[:, 3]).all()
    assert abs(contempt.corner_y[0] - contempt.corner_y[1]) > 0.1
    assert _shape(Expression.DISGUST, 1.0).nose_wrinkle > 0.9


def test_expression_grows_with_intensity():
    corners = [_shape(Expression.HAPPINESS, i).corner_y.mean() for i in (0.0, 0.3, 0.6, 1.0)]
    assert corners == sorted(corners, reverse=True)


def test_turned_head_foreshortens_the_far_side():
    def eye_width(x, yaw):
        head = Head(HeadShape(), 0.0, Pose(yaw, 0.0, 0.0), 100.0, np.zeros(2))
        ends = head.place(np.array([[x - 0.2, 0.0], [x + 0.2, 0.0]]))
        return ends[1, 0] - ends[0, 0]

    # The nose turns to the right, so the eye on the right moves round the edge.
    assert eye_width(0.42, 30.0) < 0.75 * eye_width(0.42, 0.0)
    assert eye_width(-0.42, 30.0) > eye_width(-0.42, 0.0)


def test_tiny_build_reads_back_every_face_in_order(tiny):
    sizes = {split: tiny.info.splits[split].num_examples for split in SPLITS}
    assert sizes == {"train": 48, "valid": 16, "test": 16, "test_occlusion": 16, "test_pose": 16}
    for split in SPLITS:
        records = list(tiny.as_data_source(split))
        assert [record["row"] for record in records] == list(range(sizes[split]))
        assert collections.Counter(int(r["label"]) for r in records) == dict.fromkeys(
            range(8), sizes[split] // 8
        )
    face = draw_face("test_pose", 5)
    record = tiny.as_data_source("test_pose")[5]
    assert record["label"] == face.label
    assert record["name"] == b"test_pose_00005"
    assert record["yaw"] == np.float32(face.yaw)
    assert record["occlusion"] == b"none"


def test_record_holds_the_file_encoded_once(tiny):
    import tensorflow_datasets as tfds

    skip = {"image": tfds.decode.SkipDecoding()}
    source = tiny.as_data_source("test", decoders=skip)
    face = draw_face("test", 2)
    assert source[2]["image"] == face.encode()
    decoded = np.asarray(Image.open(io.BytesIO(source[2]["image"])).convert("RGB"), int)
    assert np.abs(decoded - face.image).mean() < 12  # red and blue are not exchanged


def test_label_names_stand_in_canonical_order(tiny):
    assert tuple(tiny.info.features["label"].names) == EXPRESSION_NAMES


def test_sizes_and_seed_are_adjustable(tmp_path):
    config = FacesConfig(name="eight", sizes={"test": 8}, seed=7, workers=1)
    builder = Builder(config=config, data_dir=str(tmp_path), file_format="array_record")
    builder.download_and_prepare()
    assert list(builder.info.splits) == ["test"]
    records = builder.as_data_source("test")  # pyright: ignore[reportCallIssue] - TFDS wraps it
    labels = [record["label"] for record in records]
    assert labels == [draw_face("test", index, seed=7).label for index in range(8)]


def test_contact_sheet_shows_expressions_occlusions_and_poses():
    sheet = contact_sheet(columns=1)
    rows = len(Expression) + len(OCCLUSIONS) - 1 + 2
    assert sheet.height == 16 + rows * 66


def test_builder_imports_neither_jax_nor_tensorflow():
    code = (
        "import sys, data_builders.synthetic_faces.synthetic_faces_dataset_builder as b;"
        "b.Builder(data_dir='unused', config='tiny');"
        "sys.exit(bool({'jax', 'tensorflow', 'torch'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
