"""Reads a class out of its source with `ast`: docstring and constructor arguments, nothing imported.

Follows re-exports (`from package.head import Head`), inherited constructors within one distribution, and dataclasses.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from vertebra.plugins.locate import locate_module
from vertebra_eval.files import read_bytes

__all__ = ["ClassSource", "Parameter", "read_class"]

_MAX_HOPS = 8  # re-exports and base classes that are followed


@dataclass(frozen=True)
class Parameter:
    """One constructor parameter as text; `**name` for further keys."""

    name: str
    annotation: str
    default: str | None


@dataclass(frozen=True)
class ClassSource:
    """Where a class stands and what its source says."""

    file: Path
    line: int
    docstring: str
    parameters: tuple[Parameter, ...]


@dataclass(frozen=True)
class _Module:
    name: str
    file: Path
    is_package: bool
    classes: dict[str, ast.ClassDef]
    imports: dict[str, str]  # local name -> "module:attribute", or "module:" for a module
    constants: dict[str, ast.expr]  # top-level `NAME = value`


@dataclass(frozen=True)
class _Found:
    module: _Module
    node: ast.ClassDef


def read_class(value: str) -> ClassSource | None:
    """The class that an entry point's value `package.module:Class` means, or None where no source shows it.

    The module is located as an import would, without importing.

    Raises:
        SyntaxError, ValueError, OSError: the source cannot be read.
    """
    module_name, _, attribute = value.partition(":")
    name = attribute.partition("[")[0].strip()
    found = _find(module_name.strip(), name, _MAX_HOPS)
    if found is None:
        return None
    docstring = ast.get_docstring(found.node) or ast.get_docstring(_init_of(found.node) or found.node) or ""
    parameters = tuple(_constructor(found, _MAX_HOPS))
    return ClassSource(found.module.file, found.node.lineno, docstring, parameters)


def _find(module_name: str, name: str, hops: int) -> _Found | None:
    file = locate_module(module_name)
    if file is None or hops == 0:
        return None
    module = _parse(module_name, str(file), file.stat().st_mtime_ns)
    if name in module.classes:
        return _Found(module, module.classes[name])
    return _follow(module, name, hops)


def _follow(module: _Module, name: str, hops: int) -> _Found | None:
    """A dotted name as this module sees it: imported from elsewhere, or an attribute of an imported module."""
    if name in module.classes:
        return _Found(module, module.classes[name])
    first, _, rest = name.partition(".")
    target_module, _, attribute = module.imports.get(first, "").partition(":")
    if not target_module:
        return None
    if not attribute:
        return _find(target_module, rest, hops - 1) if rest else None
    if rest:  # `from package import module`, then `module.Class`
        return _find(f"{target_module}.{attribute}", rest, hops - 1)
    return _find(target_module, attribute, hops - 1)


def _constructor(found: _Found, hops: int) -> Iterator[Parameter]:
    init = _init_of(found.node)
    if init is not None:
        yield from _parameters(init.args, found.module)
    elif _is_dataclass(found.node):
        yield from _dataclass_parameters(found, hops)
    elif (base := _base_of(found, hops)) is not None:
        yield from _constructor(base, hops - 1)


def _base_of(found: _Found, hops: int) -> _Found | None:
    """The first base class whose source is of the same distribution or the core; torch's own are not searched."""
    for base in found.node.bases if hops else ():
        name = ast.unparse(base.value if isinstance(base, ast.Subscript) else base)
        origin = found.module.imports.get(name.partition(".")[0], f"{found.module.name}:")
        if origin.partition(".")[0].partition(":")[0] in (found.module.name.partition(".")[0], "vertebra"):
            base_found = _follow(found.module, name, hops)
            if base_found is not None:
                return base_found
    return None


def _parameters(arguments: ast.arguments, module: _Module) -> Iterator[Parameter]:
    plain = [*arguments.posonlyargs, *arguments.args]
    defaults = [None] * (len(plain) - len(arguments.defaults)) + list(arguments.defaults)
    pairs = [*zip(plain, defaults, strict=True)][1:]  # without self
    for argument, default in [*pairs, *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)]:
        annotation, default = _resolved(argument.annotation, module), _resolved(default, module)
        quoted = annotation.value if isinstance(annotation, ast.Constant) else None
        yield Parameter(argument.arg, quoted if isinstance(quoted, str) else _text(annotation) or "", _text(default))
    if arguments.kwarg is not None:
        yield Parameter(f"**{arguments.kwarg.arg}", _text(arguments.kwarg.annotation) or "", None)


def _dataclass_parameters(found: _Found, hops: int) -> Iterator[Parameter]:
    fields: dict[str, Parameter] = {}
    base = _base_of(found, hops)
    if base is not None and _is_dataclass(base.node):
        fields = {parameter.name: parameter for parameter in _dataclass_parameters(base, hops - 1)}
    for node in found.node.body:
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
            continue
        annotation = ast.unparse(node.annotation)
        if "ClassVar" in annotation or "KW_ONLY" in annotation:
            continue
        default = _text(node.value)
        if isinstance(node.value, ast.Call) and ast.unparse(node.value.func).endswith("field"):
            options = {keyword.arg: keyword.value for keyword in node.value.keywords}
            init = options.get("init")
            if isinstance(init, ast.Constant) and init.value is False:
                continue
            factory = _text(options.get("default_factory"))
            default = f"{factory}()" if factory else _text(options.get("default"))
        fields[node.target.id] = Parameter(node.target.id, annotation, default)
    yield from fields.values()


def _init_of(node: ast.ClassDef) -> ast.FunctionDef | None:
    return next((item for item in node.body if isinstance(item, ast.FunctionDef) and item.name == "__init__"), None)


def _is_dataclass(node: ast.ClassDef) -> bool:
    return any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list)


def _resolved(node: ast.expr | None, module: _Module) -> ast.expr | None:
    """A bare name of a constant or a type alias stands for what it was set to, here or where it is imported from."""
    if not isinstance(node, ast.Name):
        return node
    if node.id in module.constants:
        return module.constants[node.id]
    origin, _, attribute = module.imports.get(node.id, "").partition(":")
    if attribute and origin.partition(".")[0] == module.name.partition(".")[0]:
        file = locate_module(origin)
        if file is not None:
            return _parse(origin, str(file), file.stat().st_mtime_ns).constants.get(attribute, node)
    return node


def _text(node: ast.expr | None) -> str | None:
    if node is None:
        return None
    if isinstance(node, ast.Constant) and isinstance(node.value, str) and "\n" not in node.value:
        return f'"{node.value}"' if '"' not in node.value else repr(node.value)
    return ast.unparse(node)


@lru_cache(maxsize=256)
def _parse(name: str, file: str, changed: int) -> _Module:
    """The classes and imports of a module; `changed` makes an edited file a new one."""
    tree = ast.parse(read_bytes(file), file)
    is_package = Path(file).stem == "__init__"
    classes: dict[str, ast.ClassDef] = {}
    imports: dict[str, str] = {}
    constants: dict[str, ast.expr] = {}
    for node in _statements(tree.body):
        if isinstance(node, ast.ClassDef):
            classes[node.name] = node
            inner = (item for item in node.body if isinstance(item, ast.ClassDef))
            classes.update({f"{node.name}.{item.name}": item for item in inner})
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            constants[node.targets[0].id] = node.value
        elif isinstance(node, ast.Import):
            for alias in node.names:
                top = alias.name.partition(".")[0]
                imports[alias.asname or top] = f"{alias.name if alias.asname else top}:"
        elif isinstance(node, ast.ImportFrom):
            origin = _absolute(name, is_package, node)
            for alias in node.names:
                imports[alias.asname or alias.name] = f"{origin}:{alias.name}"
    return _Module(name, Path(file), is_package, classes, imports, constants)


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Top-level statements, those under `if` and `try` too."""
    for node in body:
        yield node
        for branch in ("body", "orelse", "handlers", "finalbody") if isinstance(node, (ast.If, ast.Try)) else ():
            for inner in getattr(node, branch, []):
                yield from _statements(inner.body if isinstance(inner, ast.ExceptHandler) else [inner])


def _absolute(name: str, is_package: bool, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    package = name.split(".") if is_package else name.split(".")[:-1]
    kept = package[: len(package) - node.level + 1]
    return ".".join([*kept, *([node.module] if node.module else [])])
