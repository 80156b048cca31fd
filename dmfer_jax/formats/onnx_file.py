"""A network as an ONNX file, for onnxruntime and whatever else reads ONNX: float32 or int8.

The graph takes uint8 "images" `[n, h, w, c]` and gives "probabilities" `[n, K]` and the "embedding"
`[n, C]`. The file's metadata are the manifest, each field as a JSON text: "labels" is a list of
names, "preprocessing" says how a picture becomes an image. Its digests cover the graph.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from google.protobuf.message import DecodeError

from dmfer_jax.errors import UserError
from dmfer_jax.files import write_atomically
from dmfer_jax.formats.program import (
    OUTPUTS,
    Loaded,
    describe,
    make_function,
    reading,
)
from dmfer_jax.formats.quantize import quantize
from dmfer_jax.onnx_graph.convert import convert
from dmfer_jax.onnx_graph.graph import IR_VERSION, OPSET
from dmfer_jax.predictor import BUCKETS
from dmfer_jax.weights import strict_json
from dmfer_jax.weights.sealing import Manifest, check_digest, seal, unseal

FORMAT = "dmfer-onnx"
PRECISION = "precision"

_GRAPH = "graph"
_LARGEST = 2**31 - 1  # bytes, of any ONNX file


def save_onnx(
    path: str | os.PathLike[str],
    manifest: Manifest,
    variables: Any,
    *,
    calibrate_on: np.ndarray | None = None,
) -> None:
    """Writes a network as an ONNX file; it is whole or not there, an older one is replaced.

    Args:
      path: where to.
      manifest: of the network.
      variables: its {"params", "batch_stats"}.
      calibrate_on: uint8 `[m, h, w, c]`, aligned faces such as the network will see. If given, the
        convolutions are int8, and of these images the ranges of their inputs are taken.

    Raises:
      UserError: this release has no such network, or it has something that cannot be written.
    """
    shape = (manifest.image_size, manifest.image_size, manifest.channels)
    try:
        graph = convert(make_function(manifest, variables), shape, OUTPUTS)
    except ValueError as error:
        raise UserError(
            f"this network cannot be written as ONNX: {error}. StableHLO holds any network: "
            "--to=stablehlo"
        ) from error
    model = onnx.helper.make_model(
        graph,
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="dmfer_jax",
        producer_version=manifest.code_version,
    )
    onnx.checker.check_model(model, full_check=True)
    if calibrate_on is not None:
        model = quantize(model, calibrate_on)
        manifest = replace(manifest, scores=None)  # they are those of the network in float32
    precision = "float32" if calibrate_on is None else "int8"
    tensors = {_GRAPH: _bytes_of(model)}
    described = seal(describe(manifest), FORMAT, tensors, **{PRECISION: precision})
    texts = {name: json.dumps(value, ensure_ascii=False) for name, value in described.items()}
    onnx.helper.set_model_props(model, texts)
    content = model.SerializeToString()
    write_atomically(path, lambda part: part.write_bytes(content))


def load_onnx(path: str | os.PathLike[str], *, threads: int = 0) -> Loaded:
    """Returns the network in an ONNX file, run by onnxruntime on the CPU.

    Args:
      path: of the file.
      threads: to run on; 0 is one for each core.

    Raises:
      UserError: it is no such file, of another version, or damaged.
    """
    path = Path(path)
    with reading(path, "python -m dmfer_jax.export --to=onnx"):
        if path.stat().st_size > _LARGEST:
            raise ValueError("it is larger than any ONNX file")
        content = path.read_bytes()
        try:
            model = onnx.load_model_from_string(content)
        except DecodeError as error:
            raise ValueError(f"found no ONNX model ({error})") from None
        described = {
            entry.key: strict_json.parse(entry.value.encode()) for entry in model.metadata_props
        }
        manifest = unseal(described, FORMAT, [PRECISION])
        check_digest(described, _GRAPH, _bytes_of(model))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        try:
            session = onnxruntime.InferenceSession(
                content, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime's errors have no class of their own
            raise ValueError(f"onnxruntime refuses it ({error})") from None
        said = [manifest.image_size, manifest.image_size, manifest.channels], len(manifest.labels)
        found = session.get_inputs()[0].shape[1:], session.get_outputs()[0].shape[-1]
        if said != found:
            raise ValueError(f"it says that it takes and gives {said}, and it is {found}")

    def call(images: np.ndarray) -> Sequence[Any]:
        return session.run(OUTPUTS, {"images": images})

    return Loaded(manifest, _batches, call)


def _batches(n: int) -> list[int]:
    """Sizes of calls; of all images at once the activations might not fit into memory."""
    most = max(BUCKETS)
    whole, rest = divmod(n, most)
    return [most] * whole + [rest] * bool(rest)


def _bytes_of(model: Any) -> np.ndarray:
    return np.frombuffer(model.graph.SerializeToString(deterministic=True), np.uint8)
