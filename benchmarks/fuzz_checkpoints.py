"""Fuzzes what a checkpoint says of itself."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from benchmarks.fuzz_inputs import edited, edited_json
from dmfer_jax import checkpoint_record
from dmfer_jax.errors import UserError

_RECORD: dict[str, Any] = {
    "format": 2,
    "step": 8,
    "note": {"epoch": 2.0, "labels": ["happiness", "anger"], "pending": [{"loss": 0.5}]},
    "valid_accuracy": 0.5,
    "arrays": {"params/head/bias": {"dtype": "float32", "shape": [2], "sha256": "0" * 64}},
    "files": {"state/a": {"bytes": 1, "sha256": hashlib.sha256(b"a").hexdigest()}},
}


def open_record(folder: Path) -> Callable[[Any], None]:
    """Feeds a checkpoint's record, as bytes or a value whose digest is made to fit."""
    checkpoint = folder / "8"
    (checkpoint / "state").mkdir(parents=True, exist_ok=True)
    (checkpoint / "state" / "a").write_bytes(b"a")

    def feed(record: Any) -> None:
        text = record if isinstance(record, bytes) else checkpoint_record.seal(record).encode()
        (checkpoint / checkpoint_record.NAME).write_bytes(text)
        checkpoint_record.read_record(checkpoint)
        if damage := checkpoint_record.find_damage(checkpoint):
            raise UserError(damage)

    return feed


def record_inputs() -> st.SearchStrategy[Any]:
    """Returns records, as bytes that were edited and as values."""
    edited_bytes = edited([checkpoint_record.seal(_RECORD).encode()])
    return st.one_of(edited_bytes, *[edited_json(_RECORD)] * 3)
