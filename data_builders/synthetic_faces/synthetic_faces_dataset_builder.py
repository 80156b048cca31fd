"""TFDS builder of the drawn faces: draws every split from a seed, downloads nothing.

Build and read it without TensorFlow:

    builder = Builder(data_dir="data", file_format="array_record")
    builder.download_and_prepare()
    records = builder.as_data_source("train")

The full dataset is drawn by one process for each core.
"""

import concurrent.futures
import contextlib
import dataclasses
import functools
import io
import multiprocessing
import os
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from data_builders.common.record_builder import Examples, RecordBuilder
from data_builders.synthetic_faces.difficulty import DEFAULT, Difficulty
from data_builders.synthetic_faces.drawing import SIDE
from data_builders.synthetic_faces.face import draw_records
from dmfer_jax.labels import EXPRESSION_NAMES

_CHUNK = 125  # faces for one task of one process: about half a second's work
_WORTH_A_POOL = 1_000  # faces; fewer are drawn before the processes have started


@dataclasses.dataclass
class FacesConfig(tfds.core.BuilderConfig):
    """What to draw. Records are found again by the config's name: give each config its own.

    Attributes:
      sizes: faces in each split.
      seed: of all that is drawn.
      difficulty: how hard the faces are.
      workers: processes that draw; 0 for one for each core. The faces do not depend on it.
    """

    sizes: Mapping[str, int] = dataclasses.field(default_factory=dict)
    seed: int = 0
    difficulty: Difficulty = DEFAULT
    workers: int = 0


class Builder(RecordBuilder):
    """Draws the faces."""

    needs_source = False
    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}  # noqa: RUF012 - TFDS declares it so
    BUILDER_CONFIGS = [  # noqa: RUF012 - TFDS declares it so
        FacesConfig(
            name="faces",
            description="8,000 faces to train on, 1,000 for each other split.",
            sizes={
                "train": 8_000,
                "valid": 1_000,
                "test": 1_000,
                "test_occlusion": 1_000,
                "test_pose": 1_000,
            },
        ),
        FacesConfig(
            name="tiny",
            description="A few faces a split, for tests.",
            sizes={"train": 48, "valid": 16, "test": 16, "test_occlusion": 16, "test_pose": 16},
        ),
    ]

    def _info(self) -> tfds.core.DatasetInfo:
        return self.record_info(
            {
                "image": tfds.features.Image(shape=(SIDE, SIDE, 3), encoding_format="jpeg"),
                "label": tfds.features.ClassLabel(names=EXPRESSION_NAMES),
                "name": tfds.features.Text(),
                "row": np.int64,
                "intensity": np.float32,
                "yaw": np.float32,
                "pitch": np.float32,
                "roll": np.float32,
                "occlusion": tfds.features.Text(),
            },
            supervised_keys=("image", "label"),
        )

    def download_and_prepare(self, **kwargs: Any) -> None:
        """Draws the faces and writes the records; see `tfds.core.DatasetBuilder`.

        Args:
          **kwargs: of TFDS; none is needed.
        """
        config = self._faces_config
        workers = config.workers or os.cpu_count() or 1
        if workers == 1 or sum(config.sizes.values()) < _WORTH_A_POOL:
            super().download_and_prepare(**kwargs)
            return
        # Spawned, not forked: a copy of a process in which JAX runs threads may hang.
        spawn = multiprocessing.get_context("spawn")
        with _no_main_module(), concurrent.futures.ProcessPoolExecutor(workers, spawn) as pool:
            self._map = pool.map
            super().download_and_prepare(**kwargs)

    _map: Callable[..., Iterator[list[dict[str, Any]]]] = map

    def split_examples(self) -> dict[str, Examples]:
        """Returns the faces of each split; see `RecordBuilder`."""
        sizes = self._faces_config.sizes
        return {split: Examples(size, self._draw(split, size)) for split, size in sizes.items()}

    def _draw(self, split: str, size: int) -> Iterator[dict[str, Any]]:
        config = self._faces_config
        draw = functools.partial(
            draw_records, split, seed=config.seed, difficulty=config.difficulty
        )
        chunks = [range(start, min(start + _CHUNK, size)) for start in range(0, size, _CHUNK)]
        for records in self._map(draw, chunks):
            for record in records:
                yield {**record, "image": io.BytesIO(record["image"])}

    @property
    def _faces_config(self) -> FacesConfig:
        config = self.builder_config
        assert isinstance(config, FacesConfig)
        return config


@contextlib.contextmanager
def _no_main_module() -> Iterator[None]:
    """Hides the main program from processes that are started meanwhile.

    They would import all of it first (JAX, Orbax: seconds for each), and need nothing of it.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
