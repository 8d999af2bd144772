"""Image files: read, looked into, surveyed."""

from vertebra.data.images.read import read_image, read_labels

__all__ = ["read_image", "read_labels"]
