"""The report of an evaluation: plots, pictures, and one HTML file that shows it all."""

from vertebra.evaluation.report.blocks import Facts, Figure, Gallery, Picture, Section, Table, Text
from vertebra.evaluation.report.dataset_section import dataset_sections
from vertebra.evaluation.report.html import write_report

__all__ = ["Facts", "Figure", "Gallery", "Picture", "Section", "Table", "Text", "dataset_sections", "write_report"]
