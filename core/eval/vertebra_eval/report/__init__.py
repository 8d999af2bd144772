"""The report of an evaluation: plots, tables and given pictures in one HTML file."""

from vertebra_eval.report.blocks import Facts, Figure, Gallery, Picture, Section, Table, Text
from vertebra_eval.report.html import write_report

__all__ = ["Facts", "Figure", "Gallery", "Picture", "Section", "Table", "Text", "write_report"]
