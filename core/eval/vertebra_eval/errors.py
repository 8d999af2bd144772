"""The errors that a user can cause: each message says what, where, and how to fix it."""

__all__ = ["DataError", "VertebraError"]


class VertebraError(Exception):
    """Base of every error that a user can cause and fix, in Vertebra and its plugins too."""


class DataError(VertebraError):
    """A dataset, an image, an annotation or a result is wrong; names the file and the record."""

    file_name: str | None = None
    """The image at fault, where it is another than the one that was wanted (images that a transform joins)."""
