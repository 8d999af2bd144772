"""Models as files that other runtimes read: ONNX, and torch.export's own format."""

from vertebra._deprecation import former_names
from vertebra_eval._lazy import lazy_exports

_get, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "vertebra.export.onnx_file": ("ExportReport", "export_onnx"),
        "vertebra.export.onnx_runtime": ("OnnxModel",),
        "vertebra.detection.graph_nms": ("suppressed", "suppressed_candidates"),
    },
)
__getattr__ = former_names(__name__, _get)
