"""Models as files that other runtimes read: ONNX, and torch.export's own format."""

from vertebra_eval._lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "vertebra.export.onnx_file": ("ExportReport", "export_onnx"),
        "vertebra.export.onnx_runtime": ("OnnxModel",),
        "vertebra.export.suppression": ("suppressed", "suppressed_candidates"),
    },
)
