"""Writes plain data as YAML that this package's reader, and readers of YAML 1.1, understand alike."""

from __future__ import annotations

from typing import Any

import yaml

from vertebra.config.yaml_reader import YamlLoader

__all__ = ["dump_yaml"]


class _Dumper(yaml.SafeDumper):
    """Quotes text that either version of YAML would read as something else: `no`, `1e-3`, `2024-01-01`."""

    yaml_implicit_resolvers = {
        first: [
            *yaml.SafeDumper.yaml_implicit_resolvers.get(first, []),
            *YamlLoader.yaml_implicit_resolvers.get(first, []),
        ]
        for first in {*yaml.SafeDumper.yaml_implicit_resolvers, *YamlLoader.yaml_implicit_resolvers}
    }

    def ignore_aliases(self, data: Any) -> bool:
        return True  # a list that occurs twice is written twice


def _write_text(dumper: _Dumper, text: str) -> yaml.Node:
    """In double quotes, which escape them, where text holds line breaks other than a newline."""
    style = '"' if any(mark in text for mark in "\r\x85\u2028\u2029") else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _write_text)


def dump_yaml(data: Any) -> str:
    """Data as YAML: blocks in the order given, innermost lists and blocks in one line."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, default_flow_style=None, allow_unicode=True, width=120)
