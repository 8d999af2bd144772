"""Files that a user named, opened only if they are files; for plugins. They are those of `vertebra_eval`."""

from vertebra_eval.files import check_regular, open_regular, read_bytes, read_text

__all__ = ["check_regular", "open_regular", "read_bytes", "read_text"]
