"""Files from the network, kept in a cache: whole, as their checksums say, and never a page in the place of a file."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import time
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import SplitResult, urlsplit
from urllib.request import urlopen

from iopath.common.file_io import file_lock, get_cache_dir

from vertebra.errors import CheckpointError
from vertebra_eval.files import open_whole

__all__ = ["SCHEMES", "check_sha256", "download", "split_checksum"]

SCHEMES = ("http://", "https://", "ftp://")
TIMEOUT = 30.0  # seconds without an answer
_WATCHED = 60.0  # seconds in which a download
_LEAST = 60_000  # brings at least this number of bytes
_REPORTED = 30.0  # seconds between lines about a long download
_PAGE = re.compile(
    rb'(\xef\xbb\xbf)?\s*(<!doctype html|<html|<\?xml|<head|<body|<!--|\{\s*"[ -~]|version https://git-lfs)',
    re.IGNORECASE,
)
_NAMED_HASH = re.compile(r"-([0-9a-f]{8}|[0-9a-f]{64})\.\w+$")  # as in PyTorch's resnet50-11ad3fa6.pth
_DATE = re.compile(r"(19|20)\d\d(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])$")
_GIVEN_HASH = re.compile(r"sha256=([0-9a-fA-F]{8,64})$")
_log = logging.getLogger(__name__)


def split_checksum(uri: str) -> tuple[str, str | None]:
    """`ADDRESS#sha256=HEX` as the address and the first 8 to 64 hexadecimal digits of the file's SHA-256.

    Raises:
        CheckpointError: something else follows `#sha256=`, or the `#` of a URL.
    """
    address, sign, fragment = uri.partition("#")
    if not sign or not (fragment.startswith("sha256=") or uri.startswith(SCHEMES)):
        return uri, None
    found = _GIVEN_HASH.match(fragment)
    if found is None:
        raise CheckpointError(f"{uri}: expected #sha256= and 8 to 64 hexadecimal digits at its end, found #{fragment}")
    return address, found[1].lower()


def check_sha256(path: str | Path, expected: str, uri: str) -> None:
    """Compares a file with the first digits of its SHA-256.

    Raises:
        CheckpointError: it is another file; the message names it.
    """
    with open(path, "rb") as file:
        digest = _sha256(file)
    if not digest.startswith(expected):
        raise CheckpointError(
            f"{uri}: its copy {path} has the SHA-256 {digest[: max(8, len(expected))]}, expected {expected}.\n"
            "  Delete the copy to fetch it again, or correct the checksum"
        )


def download(url: str, sha256: str | None = None) -> Path:
    """The local copy of a file on the network, fetched once, into $FVCORE_CACHE (default ~/.torch/iopath_cache).

    Args:
        sha256: the first digits of the file's checksum; None: those in its name, such as `name-1a2b3c4d.pth`.
    Raises:
        CheckpointError: it cannot be fetched, or no longer, takes too long, is a web page, is cut off, or has another
            checksum. Nothing is kept then.
    """
    parts = _parts(url)
    name = parts.path.rpartition("/")[2]
    if not name:
        raise CheckpointError(f"{url}: names a folder, not a file")
    expected = sha256 or _hash_in(name)
    copy = _place(parts, name)
    try:
        copy.parent.mkdir(parents=True, exist_ok=True)
        with file_lock(str(copy)):
            if not copy.exists():
                _fetch(url, copy, expected)
            elif expected:
                check_sha256(copy, expected, url)
    except CheckpointError:
        raise
    except (OSError, HTTPException, ValueError) as err:  # URLError and time-outs; letters that no address may have
        raise CheckpointError(
            f"{url}: cannot be fetched ({err or type(err).__name__}).\n"
            f"  Is the address right? Is there a network? Downloads go to {get_cache_dir()} (set by FVCORE_CACHE)"
        ) from err
    return copy


def _parts(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - raises where it is not a number
    except ValueError as err:
        raise CheckpointError(f"{url}: is not an address ({err})") from err
    if not parts.hostname:
        raise CheckpointError(f"{url}: is not an address (it names no server)")
    if ".." in parts.path.split("/"):
        raise CheckpointError(f"{url}: the address must not contain '..'")
    return parts


def _hash_in(name: str) -> str | None:
    found = _NAMED_HASH.search(name)
    return found[1] if found and not _DATE.match(found[1]) else None


def _place(parts: SplitResult, name: str) -> Path:
    """Where the copy lies: two servers, folders or queries may have different files of one name."""
    server = f"{parts.hostname}_{parts.port}" if parts.port else str(parts.hostname)
    folder = Path(get_cache_dir()) / server / os.path.dirname(parts.path.lstrip("/"))
    if parts.query or len(name) > 200:  # longer names are refused by file systems
        stem, suffix = os.path.splitext(name)
        short = hashlib.sha256(f"{name}?{parts.query}".encode()).hexdigest()[:8]
        name = f"{stem[:100]}_{short}{suffix[:20]}"
    return folder / name


def _fetch(url: str, copy: Path, expected: str | None) -> None:
    """Writes `copy.part`, and names it `copy` when all is well with it."""
    part = copy.with_name(f"{copy.name}.part")  # one name for all: what a killed download leaves is written over
    with open_whole(copy, draft=part) as file:
        with urlopen(url, timeout=TIMEOUT) as response:
            announced = response.headers.get("Content-Length", "")
            total = int(announced) if announced.isdigit() else None
            _log.info("%s: downloading%s", url, "" if total is None else f" {total / 1e6:.1f} MB")
            digest = hashlib.sha256()
            size = 0
            for chunk in _chunks(response, url, total):
                if not size:
                    _refuse_page(url, chunk, response.headers.get_content_type())
                size += len(chunk)
                digest.update(chunk)
                file.write(chunk)
        if total is not None and size != total:
            raise CheckpointError(f"{url}: cut off, {size} of {total} bytes came; try again")
        if not size:
            raise CheckpointError(f"{url}: the server sent an empty file")
        if expected and not digest.hexdigest().startswith(expected):
            raise CheckpointError(
                f"{url}: what the server sent ({size} bytes) was not kept: its SHA-256 {digest.hexdigest()} does not "
                f"begin with {expected}.\n  Is it damaged, or another file? The address may give the right "
                "checksum: ...#sha256=HEX"
            )


def _chunks(response: Any, url: str, total: int | None) -> Iterator[bytes]:
    """The bytes as they come; an error where they trickle."""
    size = watched_from = 0
    watched_at = told_at = time.monotonic()
    while chunk := response.read1(1 << 18):
        size += len(chunk)
        yield chunk
        now = time.monotonic()
        if now - watched_at > _WATCHED:
            if size - watched_from < _LEAST:
                raise CheckpointError(f"{url}: too slow, {size - watched_from} bytes came in {now - watched_at:.0f} s")
            watched_at, watched_from = now, size
        if now - told_at > _REPORTED:
            _log.info("%s: %.1f MB%s", url, size / 1e6, "" if total is None else f" of {total / 1e6:.1f}")
            told_at = now


def _refuse_page(url: str, head: bytes, kind: str) -> None:
    if kind == "text/html" or _PAGE.match(head):
        raise CheckpointError(
            f"{url}: the server sent a web page or text ({kind}), not a file; it was not kept.\n"
            "  Does the address need a login, or is it the page about the file, or a pointer of Git LFS?"
        )


def _sha256(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()
