"""Files of a user: read only if they are files."""

from vertebra_eval.files.json_file import Problems, read_json
from vertebra_eval.files.regular import check_regular, open_regular, read_bytes, read_text

__all__ = ["Problems", "check_regular", "open_regular", "read_bytes", "read_json", "read_text"]
