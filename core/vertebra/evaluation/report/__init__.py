"""The report of an evaluation: what evaluators show in it, and the dataset's own section."""

from vertebra.evaluation.report.dataset_section import dataset_sections
from vertebra_eval.report import Facts, Figure, Gallery, Picture, Section, Table, Text, write_report

__all__ = ["Facts", "Figure", "Gallery", "Picture", "Section", "Table", "Text", "dataset_sections", "write_report"]
