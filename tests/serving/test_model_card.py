"""The card: the one beside the model, else one of what the file says; never anything that runs."""

import dataclasses
from typing import Any

import pytest

from dmfer_jax.errors import UserError
from dmfer_jax.reporting.plain_json import to_plain
from dmfer_jax.serving.model_card import read_card, render_card
from tests.serving.tiny_server import MANIFEST


def describe(**changes: Any) -> dict[str, Any]:
    return to_plain(dataclasses.asdict(dataclasses.replace(MANIFEST, **changes)))


def test_card_beside_the_model_is_taken(tmp_path):
    (tmp_path / "small.md").write_text("# Small\n\n| a | b |\n|---|---|\n| 1 | 2 |\n")
    card = render_card(read_card(tmp_path / "small.safetensors", "small", describe()))
    assert "<h1>Small</h1>" in card
    assert "<td>1</td>" in card


def test_card_that_is_no_text_is_told(tmp_path):
    (tmp_path / "small.md").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"small\.md, the card of the model, cannot be read"):
        read_card(tmp_path / "small.safetensors", "small", describe())


def test_split_that_was_trained_on_is_called_so(tmp_path):
    path = tmp_path / "none.safetensors"
    trained = {"dataset": "ferplus", "train_splits": ["train", "valid"]}
    assert "valid*, which it was trained on, too:" in read_card(
        path, "x", describe(training=trained)
    )
    held_out = read_card(
        path, "x", describe(training={"dataset": "ferplus", "train_splits": ["train"]})
    )
    assert "split *valid*:" in held_out
    for unlike in ("train", 5, None):
        made = read_card(
            path, "x", describe(training={"dataset": "ferplus", "train_splits": unlike})
        )
        assert "split *valid*:" in made
    made = read_card(path, "x", describe(training={"dataset": ["ferplus"]}))
    assert "split *valid*:" in made
    assert "The file has no scores." in read_card(path, "x", describe(scores=None))


def test_what_a_stranger_wrote_into_a_file_stays_text(tmp_path):
    harm = '<script>x</script> ![](https://evil.example/x.png) [y](javascript:z) | a\n# b "c"'
    changed = describe(notes=harm, licence=harm, labels=(harm, "sad"), training={harm: harm})
    card = render_card(read_card(tmp_path / "x", harm, changed))
    for text in ("<script", "<img", "<a ", "evil.example/x.png&quot;"):
        assert text not in card
    assert card.count("<h1>") == 1
    assert "&lt;script&gt;x&lt;/script&gt; ![](https://evil.example/x.png)" in card
    beside = render_card("<img src=x> ![](https://evil.example/x.png) [y](javascript:z)")
    assert "<img" not in beside
    assert 'href="javascript' not in beside
