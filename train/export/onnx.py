"""From a trained ViT to ONNX, and from ONNX to INT8: whole graphs as bytes, and a way to ask them.

`train.export.export` calls it. Norms are folded into the layers before them, attention, GELU and layer norm are
one operator each, and the batch is the only axis of free length. Knows neither releases nor data sets.
"""

import contextlib
import copy
import logging
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from timm.utils import reparameterize_model

from cluster.expected import first_line

OPSET = 25
"""The newest that torch 2.14 writes and ONNX Runtime 1.32 loads; attention is one operator since 23."""
INPUT, OUTPUT = "pixels", "logits"
EXAMPLE_BATCH = 2
"""The exporter would take an axis of length one for a constant."""
CALIBRATION_BATCH = 16


class OnnxError(ValueError):
    """The model cannot be written as ONNX; the message says why in one line."""


def to_onnx(model: torch.nn.Module, side: int) -> bytes:
    """Return the model's graph in float32, fused, for x_NCHW of any N.

    Args:
        model: on the CPU; it is left as it is.
        side: height and width of its single-channel input, pixels.
    Raises:
        OnnxError: torch cannot trace it.
    """
    fused = reparameterize_model(copy.deepcopy(model).eval())
    example_NCHW = torch.zeros(EXAMPLE_BATCH, 1, side, side)
    try:
        with _quiet():
            program = torch.onnx.export(
                fused,
                (example_NCHW,),
                input_names=[INPUT],
                output_names=[OUTPUT],
                opset_version=OPSET,
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                dynamo=True,
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        raise OnnxError(f"{type(model).__name__} cannot be written as ONNX: {first_line(error)}") from error
    assert program is not None
    return program.model_proto.SerializeToString()


def quantise_dynamic(graph: bytes) -> bytes:
    """INT8 weights, a scale per channel; activations are scaled by the range of each batch as it comes."""
    with _files(graph) as (source, target):
        quantize_dynamic(
            source,
            target,
            op_types_to_quantize=["MatMul", "Gemm"],
            per_channel=True,
            weight_type=QuantType.QInt8,
        )
        return target.read_bytes()


def quantise_static(graph: bytes, inputs_NCHW: np.ndarray) -> bytes:
    """INT8 weights and activations, with ranges measured once: an image's answer does not depend on its batch.

    Args:
        inputs_NCHW: float32 model inputs of training images that the ranges of activations are taken from.
    """
    with _files(graph) as (source, target):
        quantize_static(
            source,
            target,
            _Batches(inputs_NCHW),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["MatMul", "Gemm", "Conv"],
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            extra_options={"MatMulConstBOnly": True},
        )
        return target.read_bytes()


class OnnxModel:
    """A graph in ONNX Runtime, on the CPU."""

    def __init__(self, graph: bytes) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])

    def logits(self, inputs_NCHW: np.ndarray) -> np.ndarray:
        """Raw outputs, float32 (N, K), for model inputs as `data.imaging.preprocess.to_model_input` makes them."""
        return self._session.run([OUTPUT], {INPUT: inputs_NCHW})[0]


class _Batches(CalibrationDataReader):
    """What ONNX Runtime's calibrator reads: one batch a call, None at the end."""

    def __init__(self, inputs_NCHW: np.ndarray) -> None:
        starts = range(0, len(inputs_NCHW), CALIBRATION_BATCH)
        self._rest = iter([{INPUT: inputs_NCHW[start : start + CALIBRATION_BATCH]} for start in starts])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._rest, None)


@contextlib.contextmanager
def _files(graph: bytes) -> Iterator[tuple[Path, Path]]:
    """Provide the graph as a file, and a path for the quantised graph, since the quantisers work on paths."""
    with tempfile.TemporaryDirectory() as folder, _quiet():
        source = Path(folder) / "float32.onnx"
        source.write_bytes(graph)
        yield source, Path(folder) / "int8.onnx"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the advice that exporter and quantisers log whatever one does."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
