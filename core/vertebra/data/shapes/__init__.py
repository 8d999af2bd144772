"""The generated dataset `shapes`."""

from vertebra.data.shapes.format import ShapesFormat

__all__ = ["ShapesFormat"]
