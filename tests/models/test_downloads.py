"""Downloads end in time, are whole and what their checksum says, and a page never takes the place of a file."""

import hashlib
import http.server
import socket
import threading
import time
from pathlib import Path

import pytest
import torch

from vertebra.errors import CheckpointError
from vertebra.models import downloads
from vertebra.models.weights import fetch, read_weights

CONTENT = b"weights" * 1000
SHA = hashlib.sha256(CONTENT).hexdigest()


class Answers(http.server.BaseHTTPRequestHandler):
    """Answers `server.body` with `server.headers` to every question, in pieces with a pause after each."""

    def log_message(self, *arguments):
        pass

    def do_GET(self):
        self.server.asked.append(self.path)
        self.send_response(self.server.status)
        for name, value in self.server.headers.items():
            self.send_header(name, value)
        self.end_headers()
        for start in range(0, len(self.server.body), self.server.piece):
            self.wfile.write(self.server.body[start : start + self.server.piece])
            self.server.closing.wait(self.server.pause)


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path / "cache"))
    served = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    served.status, served.headers, served.body, served.asked = 200, {}, CONTENT, []
    served.piece, served.pause, served.closing = 1 << 20, 0.0, threading.Event()
    thread = threading.Thread(target=served.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    served.url = f"http://127.0.0.1:{served.server_address[1]}"
    yield served
    served.closing.set()
    served.shutdown()
    served.server_close()
    thread.join()


def kept(tmp_path):
    return [path.name for path in (tmp_path / "cache").rglob("*") if path.is_file() and path.suffix != ".lock"]


def test_a_file_is_kept_whole_and_under_its_name(server, tmp_path):
    path = fetch(f"{server.url}/zoo/net.pth")
    assert Path(path).read_bytes() == CONTENT and kept(tmp_path) == ["net.pth"]
    assert fetch(f"{server.url}/zoo/net.pth") == path and server.asked == ["/zoo/net.pth"]


def test_queries_and_folders_make_other_files(server):
    paths = {fetch(f"{server.url}/{rest}") for rest in ("a/n.pth", "b/n.pth", "b/n.pth?id=1", "b/n.pth?id=2")}
    assert len(paths) == 4 and all(path.endswith(".pth") for path in paths)
    assert fetch(f"{server.url}/{'long' * 100}.pth").endswith(".pth")


@pytest.mark.parametrize("place", ["name", "address", "short", "capitals"])
def test_a_right_checksum_passes_wherever_it_stands(server, place):
    given = {
        "name": f"net-{SHA[:8]}.pth",
        "address": f"net.pth#sha256={SHA}",
        "short": f"net.pth#sha256={SHA[:8]}",
        "capitals": f"net-00000000.pth#sha256={SHA.upper()}",
    }
    assert Path(fetch(f"{server.url}/{given[place]}")).read_bytes() == CONTENT


@pytest.mark.parametrize("name", ["net-0123abcd.pth", f"net.pth#sha256={'0' * 64}"])
def test_a_wrong_checksum_keeps_nothing(server, tmp_path, name):
    with pytest.raises(
        CheckpointError, match=rf"(?s)net.*pth: what the server sent \(7000 bytes\) was not kept: .*{SHA}.*#sha256=HEX"
    ):
        fetch(f"{server.url}/{name}")
    assert kept(tmp_path) == []


@pytest.mark.parametrize("stem", ["net-20230614", "run-1699999999", "run-20240101123000", "a-446655440000"])
def test_dates_and_other_numbers_in_a_name_are_no_checksums(server, stem):
    assert fetch(f"{server.url}/{stem}.pth")


def test_a_copy_that_was_changed_is_named(server):
    url = f"{server.url}/net-{SHA[:8]}.pth"
    path = fetch(url)
    with open(path, "ab") as file:
        file.write(b"x")
    with pytest.raises(CheckpointError, match=rf"(?s){url}: its copy {path} has the SHA-256 .*Delete the copy"):
        fetch(url)


def test_checksums_of_local_files_are_compared_too(tmp_path):
    torch.save({"a": torch.ones(2)}, tmp_path / "a.pth")
    digest = hashlib.sha256((tmp_path / "a.pth").read_bytes()).hexdigest()
    assert list(read_weights(f"{tmp_path}/a.pth#sha256={digest}")) == ["a"]
    with pytest.raises(CheckpointError, match=r"expected 00000000"):
        read_weights(f"{tmp_path}/a.pth#sha256=00000000")


@pytest.mark.parametrize("fragment", ["sha256=xyz", "sha256=abc", "sha1=0123456789", "top"])
def test_a_fragment_that_is_no_checksum_is_refused(server, fragment):
    with pytest.raises(CheckpointError, match=r"expected #sha256= and 8 to 64 hexadecimal digits"):
        fetch(f"{server.url}/net.pth#{fragment}")
    assert server.asked == []


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"sign in", {"Content-Type": "text/html; charset=utf-8"}),
        (b"\n <!DOCTYPE HTML><title>Not found</title>", {"Content-Type": "application/octet-stream"}),
        (b"<html>", {}),
        (b'<?xml version="1.0"?><Error>AccessDenied</Error>', {}),
        (b"\xef\xbb\xbf<!-- x --><html>", {"Content-Type": "application/octet-stream"}),
        (b'{"error": "gone"}', {"Content-Type": "application/json"}),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1", {}),
    ],
)
def test_a_page_never_enters_the_cache(server, tmp_path, body, headers):
    server.body, server.headers = body, headers
    with pytest.raises(CheckpointError, match=r"(?s)net.pth: the server sent a web page or text .*not kept.*login"):
        read_weights(f"{server.url}/net.pth")
    assert kept(tmp_path) == []


def test_what_is_cut_off_or_empty_is_not_kept(server, tmp_path):
    server.headers = {"Content-Length": str(len(CONTENT) + 5)}
    with pytest.raises(CheckpointError, match=r"net.pth: cut off, 7000 of 7005 bytes came"):
        fetch(f"{server.url}/net.pth")
    server.headers, server.body = {}, b""
    with pytest.raises(CheckpointError, match="empty file"):
        fetch(f"{server.url}/net.pth")
    assert kept(tmp_path) == []


@pytest.mark.timeout(60)
def test_a_silent_server_ends_in_time(tmp_path, monkeypatch):
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(downloads, "TIMEOUT", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        start = time.monotonic()
        with pytest.raises(CheckpointError, match=r"cannot be fetched \(.*timed out"):
            fetch(f"http://127.0.0.1:{silent.getsockname()[1]}/net.pth")
        assert time.monotonic() - start < 20
    assert kept(tmp_path) == []


@pytest.mark.timeout(60)
@pytest.mark.parametrize("pause", [0.05, 30])
def test_a_server_that_trickles_or_stops_ends_in_time(server, tmp_path, monkeypatch, pause):
    monkeypatch.setattr(downloads, "TIMEOUT", 1.0)
    monkeypatch.setattr(downloads, "_WATCHED", 0.5)
    server.piece, server.pause = 10, pause
    with pytest.raises(CheckpointError, match=r"net.pth: (too slow, \d+ bytes came|cannot be fetched \(.*timed out)"):
        fetch(f"{server.url}/net.pth")
    assert kept(tmp_path) == []


@pytest.mark.parametrize("address", ["http://[::1/x.pth", "http://h:port/x.pth", "http:///x.pth", "https://host/"])
def test_what_is_no_address_says_so(address):
    with pytest.raises(CheckpointError, match=r"is not an address|names a folder"):
        fetch(address)


def test_letters_that_no_address_has_are_an_error(server):
    with pytest.raises(CheckpointError, match="cannot be fetched"):
        fetch(f"{server.url}/\u00e9.pth")


def test_a_file_that_cannot_be_read_names_its_copy(server, tmp_path):
    with pytest.raises(CheckpointError, match=r"net.pth \(its copy: .*net.pth; delete it to fetch it again\)"):
        read_weights(f"{server.url}/net.pth")


def test_a_cache_that_cannot_be_written_is_named(server, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path / "file"))
    with pytest.raises(CheckpointError, match=r"(?s)cannot be fetched.*set by FVCORE_CACHE"):
        fetch(f"{server.url}/net.pth")
