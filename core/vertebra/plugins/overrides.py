"""Methods that a component's class overrides take the arguments that they are called with."""

from __future__ import annotations

import inspect
from types import FunctionType

from vertebra.errors import PluginError

__all__ = ["check_overrides"]

_FREE = ("forward", "network", "compute")  # these name what they get, see `vertebra.models.given`


def check_overrides(cls: type, kind: str) -> None:
    """Each public method of the contract can be called with the contract's own arguments.

    Raises:
        PluginError: one cannot; names file and line.
    """
    contract = next((base for base in reversed(cls.__mro__) if "component_kind" in vars(base)), cls)
    for name, promised in vars(contract).items():
        own = inspect.getattr_static(cls, name, None)
        public = not name.startswith("_") or name == "__call__"
        if own is promised or name in _FREE or not public or not isinstance(promised, FunctionType):
            continue
        if not isinstance(own, FunctionType):  # a property or an object that is called decides for itself
            continue
        several = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        given = [one.name for one in inspect.signature(promised).parameters.values() if one.kind not in several]
        signature = inspect.signature(own)
        try:
            signature.bind(*given)
        except TypeError as err:
            code = inspect.unwrap(own).__code__
            call, takes = ", ".join(given[1:]), ", ".join(signature.parameters)
            raise PluginError(
                f"{code.co_filename}:{code.co_firstlineno}: {kind} {cls.__qualname__}: {name} is called as "
                f"{name}({call}), but takes ({takes}).\n  Write: def {name}({', '.join(['self', *given[1:]])})"
            ) from err
