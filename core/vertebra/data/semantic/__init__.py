"""Datasets of label files, one for each image: what the numbers in them mean, and where they are found."""

from vertebra.data.semantic.classes import SemanticClasses
from vertebra.data.semantic.file_pairs import pair_files, read_names, records_of
from vertebra.data.semantic.folder_format import SemanticFolderFormat
from vertebra.data.semantic.label_reader import LabelReader

__all__ = ["LabelReader", "SemanticClasses", "SemanticFolderFormat", "pair_files", "read_names", "records_of"]
