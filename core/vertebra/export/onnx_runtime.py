"""The optional packages that ONNX needs, and ONNX Runtime as a function of a tensor."""

from __future__ import annotations

import importlib
import os
from pathlib import Path

import torch
from torch import Tensor

from vertebra.errors import SetupError

__all__ = ["OnnxModel", "need_onnx"]

_NO_TELEMETRY = "ORT_DISABLE_TELEMETRY"
"""Read when ONNX Runtime is imported, which otherwise writes a device id below the home folder and reports its use."""
_NEEDED = ("onnx", "onnxscript", "onnxruntime")


def need_onnx() -> None:
    """Raises SetupError where a package that the export needs is missing."""
    os.environ.setdefault(_NO_TELEMETRY, "1")
    missing = []
    for name in _NEEDED:
        try:
            importlib.import_module(name)
        except ImportError as err:
            missing.append(f"{name} ({err})")
    if missing:
        raise SetupError(
            f"ONNX export needs packages that cannot be imported: {'; '.join(missing)}.\n"
            "  Fix it: pip install 'vertebra[onnx]'"
        )


class OnnxModel:
    """An ONNX file in ONNX Runtime on the CPU: images (N, 3, H, W) float32 to {name: tensor}."""

    def __init__(self, path: str | Path) -> None:
        need_onnx()
        import onnxruntime

        onnxruntime.disable_telemetry_events()  # where someone else has imported it before
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors alone
        self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.input_name = self.session.get_inputs()[0].name
        self.names = [output.name for output in self.session.get_outputs()]

    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        values = self.session.run(None, {self.input_name: images.numpy()})
        return {name: torch.from_numpy(value) for name, value in zip(self.names, values, strict=True)}
