"""The command `vertebra-eval`."""

from vertebra_eval.command.main import main

__all__ = ["main"]
