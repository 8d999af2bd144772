"""`vertebra export` reports nothing: no connection is opened and nothing is written below the home folder."""

import os
import subprocess
import sys

import pytest

WATCHED = """
import os, sys, threading, time

def refuse(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto", "socket.bind"):
        os.write(2, f"SOCKET {event} {arguments}\\n".encode())  # one write: two threads may tell at once

sys.addaudithook(refuse)

def watch():  # sockets that native code opens
    while True:
        for number in os.listdir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else ():
            try:
                target = os.readlink(f"/proc/self/fd/{number}")
            except OSError:
                continue
            if target.startswith("socket:"):
                os.write(2, f"SOCKET {target}\\n".encode())
        time.sleep(0.002)

threading.Thread(target=watch, daemon=True).start()
"""
EXPORT = """
from vertebra.cli import main
sys.argv = ["vertebra", "export", "recipe.yaml", "--weights", "weights.pth", "--output", "net.onnx", "--size", "64x64"]
main()
"""
RECIPE = """
model:
  backbone: {name: UNetEncoder, base_width: 2, num_stages: 2}
  heads: {pixels: {name: UNetHead, num_classes: 2}}
"""


@pytest.fixture
def run(tmp_path):
    """run(code): what a watched process printed to standard error, and the files below its home folder."""
    home = tmp_path / "home"
    home.mkdir()
    (tmp_path / "work").mkdir()

    def start(code):
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "ORT_"))}
        environment |= {"HOME": str(home), "USERPROFILE": str(home)}
        command = [sys.executable, "-c", WATCHED + code]
        done = subprocess.run(command, cwd=tmp_path / "work", env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stderr, sorted(str(path.relative_to(home)) for path in home.rglob("*") if path.is_file())

    start.folder = tmp_path / "work"
    return start


def test_an_export_opens_no_connection_and_writes_nothing_at_home(run):
    pytest.importorskip("onnxruntime")
    import torch

    from vertebra.config import load_recipe
    from vertebra.models import build_model

    (run.folder / "recipe.yaml").write_text(RECIPE)
    model = build_model(load_recipe(run.folder / "recipe.yaml"))
    classes = {"stuff_classes": ["a", "b"]}
    torch.save({"model": model.state_dict(), **classes}, run.folder / "weights.pth")
    printed, files = run(EXPORT)
    assert (run.folder / "net.onnx").is_file()
    assert "SOCKET" not in printed and files == []


def test_the_watch_sees_what_it_watches_for(run):
    printed, _ = run("import socket\nkept = socket.socket()\nkept.bind(('127.0.0.1', 0))\ntime.sleep(0.05)\n")
    assert "SOCKET socket.bind" in printed
    assert "SOCKET socket:" in printed or not os.path.isdir("/proc/self/fd")
