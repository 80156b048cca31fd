"""What a run says of itself before its first step."""

import pytest

from dmfer_jax import distributed, run, run_folder
from dmfer_jax.errors import UserError


def test_run_says_at_its_beginning_what_will_hold_it_up(tiny_config, data_dir, tmp_path, capsys):
    (folder,) = data_dir.glob("synthetic_faces/tiny/*")
    run.print_summary(run.start_run(tiny_config, tmp_path / "fine", folder))
    assert "note:" not in capsys.readouterr().out
    tiny_config.data.memory_gib, tiny_config.data.image_size = 1e-6, 16
    run.print_summary(run.start_run(tiny_config, tmp_path / "slow", folder))
    said = capsys.readouterr().out
    assert "note: training images are decoded anew in each epoch; all take 0.0 GiB" in said
    assert "channel attention can learn no queries and keys" in said


def test_an_epoch_that_is_over_has_a_whole_number(tiny_config, data_dir, tmp_path):
    (folder,) = data_dir.glob("synthetic_faces/tiny/*")
    begun = run.start_run(tiny_config, tmp_path, folder)._replace(epoch_ends=[1, 3, 5])
    over = [begun.epochs_over(step) for step in range(6)]
    assert over == [0, 1, 1.5, 2, 2.5, 3]


def test_a_process_with_another_config_than_process_0_does_not_begin(
    tiny_config, data_dir, tmp_path, monkeypatch
):
    (folder,) = data_dir.glob("synthetic_faces/tiny/*")
    run.start_run(tiny_config, tmp_path, folder)
    written = (tmp_path / "config.json").read_text()
    monkeypatch.setattr(distributed, "is_main", lambda: False)
    tiny_config.data.workers, tiny_config.data.source = 3, "/of/this/host"
    run.start_run(tiny_config, tmp_path, folder)
    for section, field, value in (("train", "checkpoint_every", 7), ("loss", "margin", 0.5)):
        before = tiny_config[section][field]
        tiny_config[section][field] = value
        message = rf"config\.{section}\.{field} is {value} here, and .* in process 0; start all"
        with pytest.raises(UserError, match=message):
            run.start_run(tiny_config, tmp_path, folder)
        tiny_config[section][field] = before
    assert (tmp_path / "config.json").read_text() == written
    assert run_folder.load_config(tmp_path).data.source == ""
