"""Finds the faces in photos and videos and tells their expressions.

  python -m dmfer_jax.predict photo.jpg
  python -m dmfer_jax.predict holiday/ --out=faces.csv --draw=drawn/
  python -m dmfer_jax.predict interview.mp4 --format=json
  python -m dmfer_jax.predict --camera=0

Nothing is downloaded and nothing is sent. docs/use.md describes the output. Ends with status 0 if
all was read; 1 if some photos could not be, whose rows say why, or could not be drawn; 2 if the
command itself is wrong.
"""

import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from absl import flags
from rich.console import Console

import dmfer_jax
from dmfer_jax import command, loading
from dmfer_jax.errors import UserError
from dmfer_jax.expression_model import ExpressionModel, Photo
from dmfer_jax.faces import FaceFinder
from dmfer_jax.interruption import ending_tidily
from dmfer_jax.photo_files import Listed, list_photos
from dmfer_jax.photo_record import make_record
from dmfer_jax.photos import read_photo
from dmfer_jax.reporting import face_drawing, face_rows
from dmfer_jax.reporting.counting import counting
from dmfer_jax.tracking import Tracks
from dmfer_jax.video import read_frames

_MANY = 200
"""From so many photos on, a program for 64 faces at a time is worth compiling. One for a single
face compiles faster, which is all that a few photos wait for: the next are read meanwhile."""

Drawn = face_drawing.DrawnFiles


@dataclass
class Counts:
    """Of photos and videos, those of a run that this one goes on with included where it says so.

    Attributes:
      looked_at: in this run.
      with_faces: in this run, photos and frames.
      faces: in this run.
      failed: that could not be read, in all runs.
      undrawn: of photos that could not be drawn in this run, why.
    """

    looked_at: int = 0
    with_faces: int = 0
    faces: int = 0
    failed: int = 0
    undrawn: list[str] = field(default_factory=list)

    def add(self, photo: Photo) -> None:
        """Counts the faces of a photo or a frame."""
        self.with_faces += bool(photo.faces)
        self.faces += len(photo.faces)


@dataclass(frozen=True)
class Output:
    """Where rows go.

    Attributes:
      write: takes a record of `face_rows`.
      done: names of what is there already.
      counts: of what was looked at.
      drawn: where pictures go, if anywhere.
    """

    write: Callable[[face_rows.Record], None]
    done: set[str]
    counts: Counts
    drawn: Drawn | None


def predict_photos(
    model: ExpressionModel,
    paths: Sequence[Path],
    output: Output,
    *,
    aligned: bool,
    batch: int,
    bar: bool,
) -> None:
    """Writes a row for each face of photos that is not there yet.

    Args:
      model: of `dmfer_jax.load`.
      paths: of the photos.
      output: where to.
      aligned: whether they are crops of one face each.
      batch: faces to predict together.
      bar: whether to show how far it is.
    """
    left = [path for path in paths if _name(path) not in output.done]
    if not left:
        return
    shown = counting(Console(stderr=True), len(left), "photos") if bar else nullcontext(_nothing)
    with shown as advance:
        photos = model.stream(left, aligned=aligned, batch=batch)
        for path, photo in zip(left, photos, strict=True):
            record = make_record(_name(path), photo)
            if output.drawn and not photo.error:
                try:
                    _draw_photo(path, record, output.drawn)
                except UserError as error:
                    output.counts.undrawn.append(str(error))
                    record["note"] = "; ".join(filter(None, [record["note"], str(error)]))
            output.write(record)
            output.counts.looked_at += 1
            output.counts.failed += bool(photo.error)
            output.counts.add(photo)
            advance(1)


def predict_video(
    model: ExpressionModel, source: Path | int, output: Output, *, aligned: bool
) -> None:
    """Writes a row for each face of each frame of a video, or of a camera until it ends.

    Args:
      model: of `dmfer_jax.load`.
      source: a file, or the number of a camera.
      output: where to.
      aligned: whether frames are crops of one face each.
    """
    if isinstance(source, int):
        name = original = f"camera {source}, {time.strftime('%Y-%m-%d %H.%M.%S')}"
    else:
        name, original = _name(source), source
    if name in output.done:
        return
    tracks = Tracks()
    output.counts.looked_at += 1
    try:
        with output.drawn.open_video(original) if output.drawn else nullcontext() as video:
            for seconds, rgb, rate in read_frames(source):
                followed = tracks.follow(model(rgb, aligned=aligned), seconds)
                height, width = rgb.shape[:2]
                photo = Photo([one.face for one in followed], width, height, "", "")
                record = make_record(name, photo, seconds, [one.track for one in followed])
                if video:
                    try:
                        drawn = face_drawing.draw_faces(rgb, record["faces"])
                        video.write(drawn, rate, seconds)
                    except face_drawing.NotDrawn as error:  # its rows can be had all the same
                        output.counts.undrawn.append(str(error))
                        video = None
                output.write(record)
                output.counts.add(photo)
    except face_drawing.NotDrawn as error:
        output.counts.undrawn.append(str(error))
    except UserError as error:
        output.counts.failed += 1
        output.write(make_record(name, Photo([], 0, 0, str(error), "")))


@contextmanager
def open_rows(
    out: str, form: str, class_names: Sequence[str], videos: Sequence[Path], drawn: Drawn | None
) -> Iterator[Output]:
    """Yields where rows go.

    Args:
      out: the file; standard output if there is none.
      form: "table", "csv" or "json"; nothing leaves it to the name of the file.
      class_names: of the model.
      videos: that are looked at; one that stands last in the file is begun again.
      drawn: where pictures go, if anywhere.

    Raises:
      UserError: the format does not fit the file, or what is in it.
    """
    form = form or (face_rows.SUFFIXES.get(Path(out).suffix.lower(), "") if out else "table")
    if out and form not in ("csv", "json"):
        raise UserError(
            f"--out is {out}, and the format {form or 'is not known by it'}; expected a file that "
            "ends in .csv or .json, or --format=csv or --format=json"
        )
    makers = {"csv": face_rows.Csv, "json": face_rows.Json}
    rows: Any = makers[form](class_names) if form in makers else face_rows.Table()
    if not out:
        # A stranger's names must not steer the terminal; and JSON has escapes of its own.
        plain = _escape_json if form == "json" else command.printable
        print(plain(rows.header), end="")
        yield Output(lambda record: _print(plain(rows.format(record))), set(), Counts(), drawn)
        return
    with face_rows.RowFile(Path(out), rows, {_name(video) for video in videos}) as file:
        yield Output(file.write, file.done, Counts(failed=file.failed), drawn)


@ending_tidily()
def main(argv: Sequence[str]) -> None:
    """Predicts what the arguments name."""
    options, names = flags.FLAGS, argv[1:]
    if not names and options.camera is None:
        raise UserError("there is nothing to look at; name photos, folders or videos, or --camera")
    listed = list_photos(names, options.draw)
    videos = [*listed.videos, *([] if options.camera is None else [options.camera])]
    for reason in listed.unreadable:
        print(f"error: {command.printable(reason)}", file=sys.stderr)
    drawn = Drawn(Path(options.draw), listed.photos, listed.videos) if options.draw else None
    batch = 64 if len(listed.photos) >= _MANY else 1
    # One program to compile, but for frames: they come one by one, and have few faces.
    buckets = (1, batch) if videos else (batch,)
    model = dmfer_jax.load(options.model, buckets=buckets, finder=FaceFinder(options.side))
    names, aligned = model.class_names, options.aligned
    with open_rows(options.out, options.format, names, listed.videos, drawn) as output:
        there = len(output.done)
        predict_photos(
            model, listed.photos, output, aligned=aligned, batch=batch, bar=bool(options.out)
        )
        for source in videos:
            predict_video(model, source, output, aligned=aligned)
    _say_what_was_done(listed, output.counts, there)
    if output.counts.failed or output.counts.undrawn or listed.unreadable:
        raise SystemExit(1)


def _say_what_was_done(listed: Listed, counts: Counts, there: int) -> None:
    told = [f"photos and videos: {counts.looked_at:,}, faces: {counts.faces:,}"]
    if there:
        told.append(f"there already: {there:,} (they stay; another --out has all anew)")
    if counts.failed:
        told.append(f"could not be read: {counts.failed:,} (their rows say why)")
    if undrawn := counts.undrawn:
        told.append(
            f"could not be drawn: {len(undrawn):,}, such as {command.printable(undrawn[0])}"
        )
    if listed.unreadable:
        told.append(f"folders that could not be listed: {len(listed.unreadable):,}")
    if others := listed.passed_over:
        kinds = ", ".join(f"{count:,} {suffix}" for suffix, count in others.most_common(4))
        told.append(f"passed over in folders: {kinds}")
    print("; ".join(told), file=sys.stderr)


def _draw_photo(path: Path, record: face_rows.Record, drawn: Drawn) -> None:
    rgb, scale, _ = read_photo(path)
    drawn.save_photo(face_drawing.draw_faces(rgb, record["faces"], scale), path)


def _name(path: Path) -> str:
    """A path as text; bytes of it that are no UTF-8 are spelt out."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _escape_json(text: str) -> str:
    """The same JSON in ASCII, which any terminal, pipe and encoding takes."""
    return re.sub(r"[^ -~\n]", lambda found: json.dumps(found[0])[1:-1], text)


def _print(text: str) -> None:
    print(text, end="", flush=True)


def _nothing(count: int) -> None:
    del count


if __name__ == "__main__":
    flags.DEFINE_string(
        "model",
        loading.DEFAULT_MODEL,
        "A model of this package, or a file that dmfer_jax.export wrote.",
    )
    flags.DEFINE_enum(
        "format", "", ("", "table", "csv", "json"), "Of the rows; JSON is a line for each photo."
    )
    flags.DEFINE_string("out", "", "File that rows are added to; the same command goes on with it.")
    flags.DEFINE_string("draw", "", "Folder for photos and videos with boxes and labels.")
    flags.DEFINE_bool("aligned", False, "Photos are crops of one face each; none is looked for.")
    flags.DEFINE_integer(
        "camera", None, "Number of a camera to look through, from 0 on.", lower_bound=0
    )
    flags.DEFINE_integer(
        "side", 1024, "Pixels that a photo is shrunk to, the longer side, to look for faces."
    )
    command.run(main, takes_files=True)
