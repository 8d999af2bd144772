"""Builds the core distribution `vertebra` (pure Python); everything it declares stands in pyproject.toml."""

from setuptools import setup

setup()
