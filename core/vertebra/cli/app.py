"""The `vertebra` command: its sub-commands and what it does with errors.

Nothing here imports torch, so that `--help`, `plugins` and `components` answer at once; the commands that
need it import it in their bodies.
"""

from __future__ import annotations

import os
from typing import Annotated

import typer

from vertebra import __version__
from vertebra.cli import data_commands, evaluation_commands, info_commands, model_commands, plugin_commands
from vertebra.cli.ending import one_message
from vertebra.cli.export_command import export
from vertebra.cli.options import PluginFiles
from vertebra.cli.plugin_apps import CommandsWithPlugins
from vertebra.cli.predict_command import predict
from vertebra.errors import SetupError

__all__ = ["app", "main"]

app = typer.Typer(
    name="vertebra",
    cls=CommandsWithPlugins,
    help="Object detection and segmentation from recipes and plugins.",
    epilog="Errors that you can fix print one message and exit with code 2. Anything else is a bug: exit code 1, and "
    "the message names a file with the traceback. VERTEBRA_TRACEBACK=1 prints every traceback.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("train")(model_commands.train)
app.command("evaluate")(model_commands.evaluate)
app.command("evaluate-results")(evaluation_commands.evaluate_results)
app.command("compare")(evaluation_commands.compare)
app.command("predict")(predict)
app.command("export")(export)
app.command("import-detectron2")(model_commands.import_detectron2)
app.command("import-torchvision")(model_commands.import_torchvision)
app.add_typer(data_commands.app, name="data")
app.add_typer(plugin_commands.app, name="plugins")
app.command("components")(info_commands.components)
app.command("config")(info_commands.config)
app.command("doctor")(info_commands.doctor)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"vertebra {__version__}")
        raise typer.Exit()


@app.callback()
def _root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    plugin: PluginFiles = None,
    no_plugin: Annotated[
        list[str] | None,
        typer.Option("--no-plugin", metavar="NAME", help="Ignore this installed plugin; may be repeated."),
    ] = None,
) -> None:
    _check_processes(context.invoked_subcommand)
    context.obj = plugin or []
    if no_plugin:
        from vertebra.plugins import disable

        for name in no_plugin:
            disable(name)
    if plugin:
        from vertebra.plugins.local_files import load_local_plugin

        for path in plugin:
            load_local_plugin(path)


_IN_SEVERAL_PROCESSES = ("train", "evaluate", "components", "config", "doctor")
"""Commands that share their work between processes, or write nothing."""


def _check_processes(command: str | None) -> None:
    """Raises SetupError where several processes would all do the same and write over each other."""
    processes = os.environ.get("WORLD_SIZE", "1")
    if command not in (None, *_IN_SEVERAL_PROCESSES) and processes not in ("", "1"):
        raise SetupError(
            f"`vertebra {command}` runs in one process, but WORLD_SIZE is {processes}: start it without torchrun.\n"
            "  `vertebra train` and `vertebra evaluate` share their work between processes"
        )


def main() -> None:
    """Runs the command line and ends the process."""
    with one_message("vertebra"):
        app()
