"""Files that a user named, for plugins: read only if they are files, written whole or not at all."""

from vertebra._deprecation import former_names
from vertebra_eval.files import (
    check_regular,
    free_path,
    open_regular,
    open_whole,
    read_bytes,
    read_json,
    read_text,
    write_bytes,
    write_json,
    write_text,
)

__all__ = [
    "check_regular",
    "free_path",
    "open_regular",
    "open_whole",
    "read_bytes",
    "read_json",
    "read_text",
    "write_bytes",
    "write_json",
    "write_text",
]

__getattr__ = former_names(__name__)
