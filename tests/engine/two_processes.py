"""A program in two processes that find each other as under torchrun."""

import os
import signal
import socket
import subprocess
from pathlib import Path


def heed_signals() -> None:
    """Tests that were started in the background ignore Ctrl-C, and so would the processes that they start."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)


def start_two(command: list, folder: Path, each: tuple[list, list] = ((), ()), **variables: str) -> list:
    """Starts `command`, with the words of `each` for one rank alone, in a process group of its own per rank.

    Returns:
        The two running processes; standard output and error are pipes of text.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1", **variables}
    return [
        subprocess.Popen(
            [str(word) for word in (*command, *each[rank])],
            cwd=folder,
            env=os.environ | shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            start_new_session=True,
            preexec_fn=heed_signals,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
