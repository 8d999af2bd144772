"""Files of a user: read only if they are files, written whole or not at all."""

from vertebra_eval.files.json_file import Problems, json_list_parts, read_json
from vertebra_eval.files.regular import check_regular, open_regular, read_bytes, read_text
from vertebra_eval.files.whole import (
    WholeFile,
    free_path,
    numbered_name,
    open_whole,
    whole_folder,
    write_bytes,
    write_json,
    write_text,
)

__all__ = [
    "Problems",
    "WholeFile",
    "check_regular",
    "free_path",
    "json_list_parts",
    "numbered_name",
    "open_regular",
    "open_whole",
    "read_bytes",
    "read_json",
    "read_text",
    "whole_folder",
    "write_bytes",
    "write_json",
    "write_text",
]
