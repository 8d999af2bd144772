"""`vertebra plugins`, `plugins check` and `plugins new`."""

from __future__ import annotations

import sys
from collections.abc import Container
from typing import TYPE_CHECKING, Annotated

import typer

from vertebra.cli import scaffold_command
from vertebra.errors import PluginError

if TYPE_CHECKING:
    from vertebra.cli.check_plugins import PluginReport
    from vertebra.plugins import PluginInfo

__all__ = ["app"]

app = typer.Typer(help="List the installed plugins; check them; start a new one.", invoke_without_command=True)


@app.callback()
def list_plugins(context: typer.Context) -> None:
    """List the installed plugins and what they offer, without importing any."""
    if context.invoked_subcommand is not None:
        return
    from vertebra.plugins import installed_plugins, unknown_in_switches
    from vertebra.plugins.locate import recipes_in

    found = installed_plugins()
    own_commands = getattr(context.find_root().command, "commands", {})
    for plugin in found:
        print(f"{plugin}  {plugin.summary}".rstrip())
        for kind, names in plugin.components.items():
            print(f"  {kind:<10} {', '.join(names)}")
        if plugin.recipe_packages:
            packages = plugin.recipe_packages.items()
            own = [f"{prefix}:{recipe}" for prefix, package in packages for recipe in recipes_in(package)]
            print(f"  {'recipes':<10} {', '.join(own) or 'none found'}")
        if plugin.commands:
            print(f"  {'commands':<10} {', '.join(f'vertebra {offer.name}' for offer in plugin.commands)}")
        if plugin.problem:
            print(_indented(f"PROBLEM: {plugin.problem}", "  "))
        for note in [*plugin.notes, *_taken_commands(plugin, own_commands)]:
            print(f"  note: {note}")
    if not found:
        print("No plugin is installed. To start one: vertebra plugins new my-head --kind head")
    else:
        print(f"\n{len(found)} installed, none imported for this list. To see which work: vertebra plugins check")
    for note in unknown_in_switches():
        print(f"note: {note}")


app.command("new")(scaffold_command.new)


@app.command("check")
def check(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="Distribution name of one plugin. Default: all plugins.")
    ] = None,
    timeout: Annotated[
        float, typer.Option(min=1, max=86400, help="Time limit for the import of one plugin, in seconds.")
    ] = 60.0,
) -> None:
    """Import each plugin in a separate process, and report whether it works, what it contains and how long it takes.

    Ends with exit code 1 where one does not work.
    """
    from vertebra.cli.check_plugins import check_plugins
    from vertebra.plugins import canonical, installed_plugins, switched_off
    from vertebra_eval.nearest import nearest

    found = installed_plugins()
    if name is not None:
        known = [plugin.distribution for plugin in found]
        found = [plugin for plugin in found if canonical(plugin.distribution) == canonical(name)]
        if not found:
            near = ", ".join(nearest(name, known)) or ", ".join(known) or "none is installed"
            raise PluginError(f"no plugin {name!r} is installed.\n  Nearest: {near}")
    for plugin in found:
        if reason := switched_off(plugin.distribution):
            print(f"{plugin}: not checked, {reason}")
    on = [plugin for plugin in found if not switched_off(plugin.distribution)]
    broken = 0
    for report in check_plugins(on, timeout):
        print(_report(report), flush=True)
        broken += not report.works
    print(f"\n{len(on)} checked, {broken or 'none'} broken" if found else "No plugin is installed.")
    if broken:
        sys.exit(1)


def _taken_commands(plugin: PluginInfo, own_commands: Container[str]) -> list[str]:
    return [
        f"command {offer.name}: the core has a command of this name; call the plugin's as `vertebra {offer.qualified}`"
        for offer in plugin.commands
        if offer.name in own_commands
    ]


def _report(report: PluginReport) -> str:
    if report.works:
        lines = [f"{report.plugin}: ok, {report.seconds:.2f} s to import beyond torch"]
    else:
        lines = [f"{report.plugin}: BROKEN"]
    if report.problem:
        lines.append(_indented(report.problem, "  "))
    told = set()
    for finding in report.findings:
        lines.append(
            f"  {finding.title}" + (f": {_indented(finding.problem, '    ').lstrip()}" if finding.problem else "")
        )
        if finding.trace and finding.trace not in told:
            told.add(finding.trace)
            lines.append(_indented(finding.trace, "    "))
    if report.output:
        lines += ["  it wrote meanwhile:", _indented(report.output, "  | ")]
    lines += [f"  note: {note}" for note in report.plugin.notes]
    return "\n".join(lines)


def _indented(text: str, by: str) -> str:
    return by + text.replace("\n", "\n" + by)
