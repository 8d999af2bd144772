"""The command line. A thin layer: each command parses, calls the library, and prints.

Only here are errors printed and the process ended: an error that the user can fix is one message and exit code 2.
"""

from vertebra.cli.app import main

__all__ = ["main"]
