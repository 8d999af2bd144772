"""`components`, `config` and `doctor`: what is there and whether it fits. None imports torch but `config`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from vertebra.cli.options import PluginFiles, plugin_files
from vertebra.errors import RecipeError

if TYPE_CHECKING:
    from vertebra.config.describe import ComponentDescription

__all__ = ["components", "config", "doctor"]


def components(
    what: Annotated[
        str | None, typer.Argument(metavar="[KIND|NAME]", help="A kind (head, loss, ...) or a component's name.")
    ] = None,
) -> None:
    """List components, or show one's arguments, types, defaults and documentation."""
    from vertebra.config.describe import list_components
    from vertebra.registry import REGISTRIES

    kind = what[:-1] if what and what.endswith("s") and what[:-1] in REGISTRIES else what
    if what is None or kind in REGISTRIES:
        _print_listing(list_components(kind))
        return
    name = what.rpartition(":")[2]
    matches = [found for found in list_components() if found.name == name]
    if not matches:
        from difflib import get_close_matches

        near = get_close_matches(what, [*REGISTRIES, *(found.name for found in list_components())], n=3)
        raise RecipeError(
            f"no kind or component is named {what!r}.\n"
            f"  Nearest: {', '.join(near) or 'none'}. Kinds: {', '.join(REGISTRIES)}"
        )
    print("\n\n".join(_description(found) for found in matches))


def _print_listing(found: list[ComponentDescription]) -> None:
    kinds = dict.fromkeys(component.kind for component in found)
    width = max((len(component.name) for component in found), default=0)
    for kind in kinds:
        print(kind)
        for component in found:
            if component.kind == kind:
                print(f"  {component.name:<{width}}  {component.summary}  [{component.distribution}]")
                if component.problem:
                    print(f"  {'':<{width}}  PROBLEM: {_indented(component.problem, width + 6)}")


def _description(component: ComponentDescription) -> str:
    lines = [
        f"{component.name}: {component.kind} of {component.distribution} {component.version}",
        f"  {component.location}",
        "",
        *([f"  PROBLEM: {_indented(component.problem, 4)}", ""] if component.problem else []),
        *(f"  {line}" if line else "" for line in component.docstring.splitlines()),
        "",
        "  arguments:" if component.arguments else "  arguments: none",
    ]
    for argument in component.arguments:
        if argument.injected:
            origin = "(given by the framework)"
        elif argument.required:
            origin = "(required)"
        else:
            origin = f"= {argument.default}"
        lines.append(f"    {argument.name}: {argument.annotation or 'any'} {origin}")
    return "\n".join(lines)


def _indented(text: str, by: int) -> str:
    return text.replace("\n", "\n" + " " * by)


def config(
    context: typer.Context,
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A YAML file, or `plugin:recipe`.")],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...")] = None,
    plugin: PluginFiles = None,
    parameters: Annotated[
        bool,
        typer.Option("--parameters", help="Print each parameter with its rate and weight decay instead."),
    ] = False,
) -> None:
    """Check a recipe and print it resolved: bases merged, overrides applied, defaults filled in."""
    from vertebra.config import load_recipe

    found = load_recipe(recipe, overrides or (), plugin_files(context, plugin))
    if parameters:
        from vertebra.engine.parameter_table import parameter_table

        print("\n".join(parameter_table(found)))
        return
    print(found.to_yaml(), end="")


def doctor() -> None:
    """Report what is installed, whether it fits, and what this machine can do; exit with code 1 on a problem."""
    from vertebra.cli.doctor import diagnose

    lines, healthy = diagnose()
    print("\n".join(lines))
    if not healthy:
        sys.exit(1)
