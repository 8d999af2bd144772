"""`vertebra plugins new`: the source of a new plugin."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["new"]


def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the new distribution, such as my-head.")],
    kind: Annotated[str, typer.Option(help="Kind of component: head, neck, backbone, loss, evaluator or hook.")],
    output: Annotated[Path, typer.Option(metavar="DIR", help="Directory in which the folder NAME is created.")] = Path(
        "."
    ),
    base: Annotated[
        str | None,
        typer.Option(
            metavar="PLUGIN:RECIPE", help="Base of the new recipe. Default: an installed recipe; a head needs none."
        ),
    ] = None,
) -> None:
    """Write a new plugin that installs, passes its own tests and trains on generated images right away."""
    from vertebra.scaffold import new_plugin

    made = new_plugin(name, kind, output, base)
    print(f"{made.folder}: a plugin with the {kind} {made.component}")
    for file in made.files:
        print(f"  {file.as_posix()}")
    print(
        "\nNext:\n"
        f"  pip install -e '{made.folder}[test]'\n"
        f"  pytest {made.folder}                  # -m 'not slow' skips the longest check\n"
        f"  vertebra train {made.recipe}"
    )
