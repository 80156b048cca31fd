"""The figures of the embedding: a map of its examples, and how its centers part in training."""

from typing import Any

import numpy as np

from dmfer_jax import metrics, run_folder
from dmfer_jax.errors import UserError
from dmfer_jax.explaining import embeddings
from dmfer_jax.explaining.subject import (
    POINTS,
    Asked,
    Subject,
    load_network,
    name_runs,
    open_run,
    read_log,
    split_or_valid,
)
from dmfer_jax.loss_options import has_centers
from dmfer_jax.reporting import embedding_figures


def draw_tsne(asked: Asked) -> dict[str, Any]:
    """Draws the embeddings of a split, one map for each run, and measures them.

    Returns:
      For each run what `embeddings.measure_classes` finds, and how many examples there were.
    """
    embeddings.check_scikit_learn()
    subjects = [
        open_run(workdir, asked, [split_or_valid(asked, workdir)], name)
        for workdir, name in zip(asked.workdirs, name_runs(asked.workdirs), strict=True)
    ]
    names = subjects[0].splits[0].class_names
    for subject in subjects:
        if subject.splits[0].class_names != names:
            raise UserError(
                f"{subject.name} tells apart {', '.join(subject.splits[0].class_names)}, and "
                f"{subjects[0].name} {', '.join(names)}; give runs of the same classes"
            )
    maps, numbers = [], {}
    for subject in subjects:
        one, numbers[subject.name] = _map_run(subject, asked.limit or POINTS)
        maps.append(one)
    title = f"Embeddings of {len(maps[0].labels):,} images of {subjects[0].splits[0].name}"
    embedding_figures.draw_embeddings(asked.out, maps, names, title)
    return numbers


def _map_run(subject: Subject, limit: int) -> tuple[embedding_figures.EmbeddingMap, dict[str, Any]]:
    """The map of a run's embeddings, and what is measured of them."""
    (split,) = subject.splits
    chosen = embeddings.sample_by_class(split.labels, limit)
    unit = embeddings.to_unit(subject.predict(split, chosen).embedding)
    labels, found = split.labels[chosen], subject.state.class_centers()
    centers = embeddings.class_means(unit, labels, len(split.class_names))
    if found is not None:
        centers = embeddings.to_unit(found)
    measured = embeddings.measure_classes(unit, labels, centers)
    # The centers are laid out with the examples, as more points of the same sphere.
    drawn = np.linalg.norm(centers, axis=1) > 0
    places = embeddings.lay_out(np.concatenate([unit, centers[drawn]]))
    laid = np.full((len(centers), 2), np.nan)
    laid[drawn] = places[len(unit) :]
    title = f"{subject.name} ({subject.title})\n{_say_measured(measured)}"
    mapped = embedding_figures.EmbeddingMap(
        title, places[: len(unit)], labels, laid, trained=found is not None
    )
    return mapped, {"split": split.name, "examples": len(chosen), **measured}


def draw_centers(asked: Asked) -> dict[str, Any]:
    """Draws how far the class centers of runs are apart over the steps.

    Returns:
      For each run the last mean cosine of its log; mean and largest of the checkpoint; the ideal.
    """
    runs, numbers, classes = {}, {}, set()
    for workdir, name in zip(asked.workdirs, name_runs(asked.workdirs), strict=True):
        options: Any = run_folder.load_config(workdir).loss
        if not has_centers(options):
            raise UserError(
                f"the run in {workdir} has no class centers: config.loss.name is {options.name}"
            )
        _, model, state, _ = load_network(workdir, asked)
        rows = [row for row in read_log(workdir) if row.get("center_spread") is not None]
        if not rows:
            raise UserError(
                f"{workdir / 'metrics.jsonl'} has no center_spread, from which the figure is drawn"
            )
        found = metrics.center_report(state.class_centers())
        means = [1 - row["center_spread"] for row in rows]
        classes.add(model.num_classes)
        runs[name] = {
            "steps": [row["step"] for row in rows],
            "mean_cosine": means,
            "largest": (int(state.step), found["max_cosine"]),
        }
        keys = ("mean_cosine", "max_cosine", "ideal_cosine")
        numbers[name] = {"last_logged": means[-1], **{key: found[key] for key in keys}}
    if len(classes) > 1:
        raise UserError(f"the runs tell apart {sorted(classes)} classes; give runs of as many")
    embedding_figures.draw_center_curves(asked.out, runs, -1 / (classes.pop() - 1))
    return numbers


def _say_measured(measured: dict[str, Any]) -> str:
    def said(key: str) -> str:
        return "-" if measured[key] is None else f"{measured[key]:.2f}"

    return (
        f"silhouette {said('silhouette')}; cosine within a class {said('within')}, "
        f"between classes {said('between')}"
    )
