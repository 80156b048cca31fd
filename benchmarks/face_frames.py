"""Measures where FER2013 has a face in its frame, for `dmfer_jax/faces.py`, and tries it out.

  python benchmarks/face_frames.py --source=path/to/fer2013 --model=model.safetensors

The finder looks at images of the training split, enlarged to the size in which faces are looked at
again, and at their mirror images. Prints the medians that stand in `dmfer_jax/faces.py`. Then
predicts images of the validation split twice, as they are and after finding and cutting out the
face; also of images that were turned before. Nothing is measured on the test split.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # so that it runs as a script

import cv2
import numpy as np
from PIL import Image

from benchmarks import measurements
from dmfer_jax import faces
from dmfer_jax.building import ensure_built
from dmfer_jax.config import load_config
from dmfer_jax.data import sources

ANGLES = (0, 30, 60)


def measure_frames(images: Sequence[np.ndarray]) -> dict[str, Any]:
    """Returns medians over images and their mirror images, in shares of the frame's side.

    Args:
      images: uint8 `[48, 48, 1]` each.
    """
    network = cv2.dnn.readNetFromONNX(str(faces.WEIGHTS))
    landmarks, sides, middles = [], [], []
    side = faces.REFINED_SIDE
    for image in images:
        for shown in (image[..., 0], image[:, ::-1, 0]):
            enlarged = Image.fromarray(np.ascontiguousarray(shown)).resize((side, side), _BILINEAR)
            if seen := faces.see(network, np.asarray(enlarged.convert("RGB")), _SURE):
                box = np.array(seen[0].box) / side
                landmarks.append(seen[0].landmarks / side)
                sides.append(np.sqrt(np.prod(box[2:] - box[:2])))
                middles.append((box[1] + box[3]) / 2)
    return {
        "images": len(images),
        "found": len(landmarks) / (2 * len(images)),
        "landmarks": np.median(landmarks, axis=0).round(4).tolist(),
        "box_side": float(np.median(sides)),
        "box_middle": float(np.median(middles)),
    }


_BILINEAR = Image.Resampling.BILINEAR
_SURE = 0.7  # of an image that is used


def turn(image: np.ndarray, angle: float) -> np.ndarray:
    """Returns a face in the middle of a grey photo of twice its size, turned by degrees.

    Args:
      image: uint8 `[h, h]`.
      angle: counter-clockwise.
    """
    half = len(image) / 2
    matrix = cv2.getRotationMatrix2D((half - 0.5, half - 0.5), angle, 1.0)
    matrix[:, 2] += half
    canvas = (2 * len(image), 2 * len(image))
    turned = cv2.warpAffine(image, matrix, canvas, borderValue=(110.0,))
    return np.repeat(turned[..., None], 3, axis=2)


def compare_cuts(model: Any, images: np.ndarray, labels: np.ndarray, angle: float) -> dict:
    """Accuracy on images in which a face is found after turning, as they are and as cut out.

    Args:
      model: of `dmfer_jax.load`.
      images: uint8 `[n, h, h, 1]`, of the size that the model takes.
      labels: int `[n]`.
      angle: degrees; every other image is turned the other way.
    """
    finder, cuts, kept = faces.FaceFinder(), [], []
    for index, image in enumerate(images):
        photo = turn(image[..., 0], angle if index % 2 else -angle)
        if found := finder(photo):
            frame = found[0].frame
            cuts.append(faces.cut_out(photo[..., 0], frame, len(image))[..., None])
            kept.append(index)
    row: dict[str, Any] = {"angle": angle, "images": len(images), "found": len(kept) / len(images)}
    for name, shown in (("as_they_are", images[kept]), ("cut_out", np.stack(cuts))):
        said = model.predictor(np.ascontiguousarray(shown)).probabilities
        row[name] = {
            "accuracy": float((said.argmax(1) == labels[kept]).mean()),
            "loss": float(-np.log(said[np.arange(len(kept)), labels[kept]]).mean()),
        }
    return row


def main() -> None:
    """Measures what the flags say."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", default="", help="FER2013 and FERPlus as downloaded")
    parser.add_argument("--data_dir", default="", help="of built records")
    parser.add_argument("--model", help="of one channel; without it only frames are measured")
    parser.add_argument("--images", type=int, default=4000)
    parser.add_argument("--compared", type=int, default=1000)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    config = load_config("configs/ferplus.py")
    config.data.image_size, config.data.channels = 48, 1
    folder = ensure_built(
        config.data.dataset,
        options.source or config.data.source,
        options.data_dir or config.data.data_dir,
    )
    draw = np.random.default_rng(0)
    split = sources.load_split(folder, "train", config.data, train=False)
    chosen = np.sort(draw.choice(len(split), min(options.images, len(split)), replace=False))
    report: dict[str, Any] = {"frames": measure_frames([split.images[i] for i in chosen])}
    print(report["frames"])
    if options.model:
        import dmfer_jax

        model = dmfer_jax.load(options.model, buckets=(64,))
        config.data.image_size = model.predictor.image_shape[0]
        split = sources.load_split(folder, "valid", config.data, train=False)
        chosen = np.sort(draw.choice(len(split), min(options.compared, len(split)), replace=False))
        report["cuts"] = []
        for angle in ANGLES:
            images = np.stack([split.images[i] for i in chosen])
            report["cuts"].append(compare_cuts(model, images, split.labels[chosen], angle))
            print(report["cuts"][-1])
    measurements.write(options.out, report)


if __name__ == "__main__":
    main()
