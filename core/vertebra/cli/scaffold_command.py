"""`vertebra plugins new`: the source of a new plugin."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vertebra.plugins import KINDS

__all__ = ["new"]


def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the new distribution, such as my-head.")],
    kind: Annotated[
        list[str],
        typer.Option(
            metavar="KIND",
            help=f"Kind of component: {', '.join(KINDS[:-1])} or {KINDS[-1]}. May be repeated.",
        ),
    ],
    class_name: Annotated[
        list[str] | None,
        typer.Option(
            "--class", metavar="CLASS", help="Name of the class; one for each --kind, in its order. Default: from NAME."
        ),
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Directory in which the folder NAME is created.")
    ] = Path("."),
    base: Annotated[
        str | None,
        typer.Option(
            metavar="PLUGIN:RECIPE",
            help="Base of the new recipe. Default: an installed recipe; a head and a model need none.",
        ),
    ] = None,
) -> None:
    """Write a new plugin that installs, passes its own tests and trains on generated images right away."""
    from vertebra.scaffold import new_plugin

    made = new_plugin(name, kind, output, base, class_name or ())
    print(
        f"{made.folder}: a plugin with " + " and ".join(f"the {kind} {name}" for kind, name in made.components.items())
    )
    for file in made.files:
        print(f"  {file.as_posix()}")
    print(
        "\nNext:\n"
        f"  pip install -e '{made.folder}[test]'\n"
        f"  pytest {made.folder}                  # -m 'not slow' skips the longest checks\n"
        + "\n".join(f"  vertebra train {' '.join(recipe)}" for recipe in made.recipes)
    )
