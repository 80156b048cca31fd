"""The figures of what a network looks at: maps over faces, and the weights of its attention."""

from typing import Any

import numpy as np

from dmfer_jax import run_folder
from dmfer_jax.data.sources import Split
from dmfer_jax.errors import UserError
from dmfer_jax.explaining import attention, embeddings, grad_cam
from dmfer_jax.explaining.subject import (
    CHUNK,
    POINTS,
    Asked,
    Subject,
    chunks,
    find_names,
    open_run,
    split_or_valid,
    the_one_run,
)
from dmfer_jax.reporting import map_figures

_FACES = 6
"""Faces in a figure of maps unless told."""


def draw_gradcam(asked: Asked) -> dict[str, Any]:
    """Draws faces with the places that speak for the predicted class, at each scale.

    Returns:
      For each face its class, its prediction and its probability.
    """
    if asked.names and asked.limit:
        raise UserError("--limit goes without --names: the faces that are named are drawn")
    workdir = the_one_run(asked)
    subject = open_run(workdir, asked, [split_or_valid(asked, workdir)])
    (split,) = subject.splits
    positions = find_names(split, asked.names) if asked.names else np.arange(len(split))
    count = len(asked.names) or min(asked.limit or _FACES, len(split))
    faces: list[map_figures.Face] = []
    right, wrong = [], []
    for part in chunks(positions):
        faces += _explain(subject, split, part)
        right = [face for face in faces if face.predicted == face.true]
        wrong = [face for face in faces if face.predicted != face.true]
        if len(right) >= count and len(wrong) >= count // 2:
            break
    if not asked.names:  # the first ones, half of them wrong as far as there are so many
        wrong = wrong[: max(count // 2, count - len(right))]
        faces = right[: count - len(wrong)] + wrong
    title = f"What speaks for the predicted class, {split.name}\n{subject.title}"
    map_figures.draw_maps(asked.out, faces, title)
    return {
        face.name: {
            "true": face.true,
            "predicted": face.predicted,
            "probability": face.probability,
        }
        for face in faces
    }


def draw_attention(asked: Asked) -> dict[str, Any]:
    """Draws the channel attention's matrices, of one face and of the mean over a split.

    Returns:
      For either, what each head's matrix says (`attention.Head`).
    """
    if len(asked.names) > 1:
        raise UserError(f"--names names {len(asked.names)} faces; attention is drawn of one")
    workdir = the_one_run(asked)
    options: Any = run_folder.load_config(workdir).model
    if options.attention != "channel":
        raise UserError(
            f"the network of {workdir} has no channel attention: config.model.attention was "
            f"{options.attention!r}"
        )
    subject = open_run(workdir, asked, [split_or_valid(asked, workdir)])
    (split,) = subject.splits
    face = int(find_names(split, asked.names)[0]) if asked.names else 0
    chosen = embeddings.sample_by_class(split.labels, asked.limit or POINTS)
    model, variables = subject.model, subject.state.eval_variables()

    of_face = f"one face: {split.names[face]}, {split.class_names[split.labels[face]]}"
    of_split = f"mean over {len(chosen):,} faces of {split.name}"
    rows = {
        name: attention.mean_weights(model, variables, split.images, positions, CHUNK)
        for name, positions in ((of_face, np.array([face])), (of_split, chosen))
    }
    shallow = attention.count_shallow(model)
    heads = {name: attention.describe_heads(weights, shallow) for name, weights in rows.items()}
    one = next(iter(heads.values()))
    mixed = [head.shallow if head.shallow and head.deep else None for head in one]
    title = f"Channel attention\n{subject.title}"
    if model.scales == "both" and not any(mixed):
        title += "\nEach head writes to the channels of one scale; its values are mixed from both"
    notes = {name: [_say_head(*pair) for pair in enumerate(all_)] for name, all_ in heads.items()}
    map_figures.draw_attention(asked.out, rows, notes, mixed, title)
    return {name: [head._asdict() for head in all_] for name, all_ in heads.items()}


def _explain(subject: Subject, split: Split, positions: np.ndarray) -> list[map_figures.Face]:
    """Faces at some positions, their maps at the image's size."""
    images = split.images[positions]
    found = grad_cam.explain_faces(subject.model, subject.state.eval_variables(), images)
    stages = grad_cam.stages_of_maps(subject.model)
    faces = []
    for place, position in enumerate(positions):
        maps = {}
        for scale, heats in found.maps.items():
            heat, stage = heats[place], stages[scale]
            heading = (
                f"{scale}{' scale' * (scale != 'compressed')}\n{len(heat)} x {len(heat)} cells"
            )
            size = subject.config.data.image_size
            maps[heading] = grad_cam.lay_over_image(heat, subject.model, stage, size)
        predicted = int(found.probabilities[place].argmax())
        faces.append(
            map_figures.Face(
                image=images[place],
                name=str(split.names[position]),
                true=split.class_names[split.labels[position]],
                predicted=split.class_names[predicted],
                probability=float(found.probabilities[place, predicted]),
                maps=maps,
            )
        )
    return faces


def _say_head(index: int, head: attention.Head) -> str:
    size = head.shallow + head.deep
    held = [name for name in ("shallow", "deep") if getattr(head, name)]
    lines = [
        f"head {index + 1}: {' and '.join(held)} channels",
        f"on itself {head.own:.2f} x an even weight",
        f"spread over {head.effective:.1f} of {size}",
    ]
    if len(held) > 1:
        shares = head.shares
        lines.append(
            f"to deep {shares['shallow to deep']:.2f}, to shallow {shares['deep to shallow']:.2f}"
        )
    return "\n".join(lines)
