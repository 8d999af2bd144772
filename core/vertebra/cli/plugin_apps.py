"""Sub-commands that plugins add to `vertebra`: entry points of the group `vertebra.commands`, name -> typer.Typer.

They are listed from metadata alone. A plugin is imported when one of its commands is used and at no other time, so that
a broken one harms nothing but its own commands.
"""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_group

from vertebra.errors import PluginError
from vertebra.plugins import Offer, installed_plugins, switched_off
from vertebra.plugins.isolation import plugin_code

__all__ = ["CommandsWithPlugins", "load_command"]


class CommandsWithPlugins(TyperGroup):
    """The core's commands, and after them those of the installed plugins. A name of the core is the core's.

    Where two plugins offer one name, using it is an error that names both; `distribution:name` always works.
    """

    def list_commands(self, context: Any) -> list[str]:
        own = super().list_commands(context)
        return [*own, *sorted({offer.name for offer in _usable_offers()} - set(own))]

    def get_command(self, context: Any, name: str) -> Any:
        own = super().get_command(context, name)
        if own is not None:
            return own
        offers = [offer for offer in _offers() if name in (offer.name, offer.qualified)]
        return PluginCommand(name, offers) if offers else None


class PluginCommand(TyperCommand):
    """Stands for a plugin's command: enough for the list in `--help`; the real one is loaded to parse its arguments.

    By then the options before the command, such as `--no-plugin`, have been obeyed.
    """

    def __init__(self, name: str, offers: list[Offer]) -> None:
        origins = dict.fromkeys(f"{offer.plugin.summary or 'Commands'} ({offer.distribution})" for offer in offers)
        super().__init__(name=name, help="; or: ".join(origins), rich_help_panel="Commands of plugins")
        self.offers = offers

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        return load_command(self._only_offer()).make_context(info_name, args, parent, **extra)

    def _only_offer(self) -> Offer:
        usable = [offer for offer in self.offers if offer.plugin.problem is None]
        if len(usable) > 1:
            forms = " or ".join(f"`vertebra {offer.qualified}`" for offer in usable)
            names = " and ".join(str(offer.plugin) for offer in usable)
            raise PluginError(f"command {self.name} is offered by {names}; say which: {forms}")
        return (usable or self.offers)[0]  # one that cannot be used says why when it is loaded


def load_command(offer: Offer) -> Any:
    """The command group that a plugin's entry point names, imported now.

    Raises:
        PluginError: it cannot be imported, or is not a typer.Typer whose commands typer understands.
    """
    found = offer.load_object()
    if not isinstance(found, typer.Typer):
        raise PluginError(f"{offer.owner}: {offer.value} is a {type(found).__name__}, expected a typer.Typer")
    with plugin_code(offer.owner):  # typer reads the signatures of its functions only now
        return get_group(found)


def _offers() -> list[Offer]:
    return [offer for plugin in installed_plugins() for offer in plugin.commands]


def _usable_offers() -> list[Offer]:
    """Without those that are switched off. Whether the others fit this core is found out when one is used."""
    return [offer for offer in _offers() if not switched_off(offer.distribution)]
