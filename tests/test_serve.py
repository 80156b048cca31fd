"""The command: it starts, warns, answers, and ends when it is told to."""

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dmfer_jax import serve
from dmfer_jax.errors import UserError
from dmfer_jax.weights.portable import save_portable
from tests.serving.tiny_server import ASTRONAUT, MANIFEST, NAMES, draw_network
from tests.test_package import run as run_python


def test_command_serves_until_it_is_ended_and_then_tells_counts(tmp_path):
    save_portable(tmp_path / "tiny.safetensors", draw_network().variables, MANIFEST)
    (tmp_path / "tiny.md").write_text("# A card of its own")
    (tmp_path / "empty").mkdir()
    arguments = ["--model=../tiny.safetensors", "--host=0.0.0.0", "--port=0"]
    process = subprocess.Popen(
        [sys.executable, "-m", "dmfer_jax.serve", *arguments],
        cwd=tmp_path / "empty",
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout
        line = process.stdout.readline()
        found = re.fullmatch(r"serving tiny at (http://127\.0\.0\.1:\d+/) .*\n", line)
        assert found, line + (process.stderr.read() if process.stderr else "")
        photo = ASTRONAUT.read_bytes()
        with urllib.request.urlopen(found[1] + "api/faces", photo, timeout=60) as answer:
            (face,) = json.load(answer)["faces"]
        assert set(face["probabilities"]) == set(NAMES)
        with urllib.request.urlopen(found[1] + "api/explain?face=1", photo, timeout=60) as answer:
            assert set(json.load(answer)["maps"]) == {"deep", "compressed"}
        with urllib.request.urlopen(found[1] + "model", timeout=60) as answer:
            assert "A card of its own" in answer.read().decode()
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            out, said = process.communicate(timeout=60)
        finally:
            process.kill()  # nothing is left running, whatever it did
    assert process.returncode == 0
    assert "warning: at 0.0.0.0 others can reach this server" in said
    assert said.endswith("photos 1, faces 1, explained 1, refused 0, failed 0\n")
    assert out == ""
    assert not list((tmp_path / "empty").iterdir())


def test_program_is_refused_since_it_cannot_be_explained(tmp_path):
    (tmp_path / "model.onnx").touch()
    with pytest.raises(UserError, match="is a program"):
        serve.make(tmp_path / "model.onnx")


def test_address_that_is_taken_is_told(tmp_path):
    with serve.bind("127.0.0.1", 0) as taken:
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"cannot listen at 127.0.0.1, port {port}: Address"):
            serve.bind("127.0.0.1", port)


@pytest.mark.parametrize("host", ["no.such.invalid", "a..b", "a" * 64])
def test_address_that_is_not_there_is_told(host):
    with pytest.raises(UserError, match=f"cannot listen at {host}, port 0: .+; give another"):
        serve.bind(host, 0)


def test_port_that_is_none_is_told(tmp_path):
    process = run_python("-m", "dmfer_jax.serve", "--port=99999", folder=tmp_path, status=2)
    assert process.stderr.startswith("error: flag --port=99999: ")
    assert "in the range [0, 65535]" in process.stderr


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("192.168.1.2", False),
        ("::", False),
        ("example.org", False),
    ],
)
def test_only_this_machine_reaches_loopback(host, expected):
    assert serve.is_loopback(host) == expected


def test_missing_extra_is_told_in_one_line(tmp_path):
    code = """
import runpy, sys
sys.modules["starlette"] = None
sys.argv = ["serve", "--model=nothing"]
runpy.run_module("dmfer_jax.serve", run_name="__main__")
"""
    process = run_python("-c", code, folder=tmp_path, status=2)
    assert process.stderr.startswith("error: the page needs starlette")
    assert "pip install 'dmfer-jax[serve]'" in process.stderr
    assert process.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("names", "proxy", "message"),
    [
        (["https://a.example"], None, "--names has 'https://a.example'; expected names as"),
        (["a.example:8443"], None, "without https:// and port"),
        ([], "nginx", "--proxy has 'nginx'; expected its IP address"),
    ],
)
def test_names_and_proxies_that_match_nothing_are_refused(names, proxy, message):
    with pytest.raises(UserError, match=message):
        serve.check_addresses(names, proxy)


def test_names_and_proxies_that_may_match_pass():
    serve.check_addresses(["faces.example.org", "my-box"], "127.0.0.1, 10.0.0.0/8,::1")
    serve.check_addresses([], "*")


@pytest.mark.parametrize("proxy", ["", "10.0.0.1"])
def test_the_header_of_a_proxy_is_believed_of_that_proxy_alone(proxy, monkeypatch):
    class Stopped(Exception):
        """Before anything is served."""

    seen: dict[str, Any] = {}

    def config(app: Any, **options: Any) -> None:
        seen.update(options)
        raise Stopped

    def make(path: Path, names: Any) -> tuple[Any, Any]:
        seen["names"] = names
        return None, None

    given = {"host": "127.0.0.1", "port": 0, "names": ["faces.example"], "proxy": proxy}
    given["model"] = "ferplus-small"
    flags = SimpleNamespace(FLAGS=SimpleNamespace(**given))
    monkeypatch.setattr(serve, "flags", flags)
    monkeypatch.setattr(serve, "make", make)
    monkeypatch.setattr(serve, "_import_uvicorn", lambda: SimpleNamespace(Config=config))
    with pytest.raises(Stopped):
        serve.main([])
    assert seen["proxy_headers"] == bool(proxy)
    assert seen["forwarded_allow_ips"] == proxy
    assert seen["names"] == ["faces.example"]
