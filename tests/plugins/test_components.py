import sys
from typing import Literal

import pytest

from vertebra.config.describe import describe, list_components
from vertebra.errors import RecipeError
from vertebra.registry import HEADS, LOSSES

pytestmark = pytest.mark.usefixtures("clean_slate")
PACKAGE = {
    "fake_pkg/__init__.py": "from fake_pkg.head import Head1 as Renamed\nraise RuntimeError('never import me')\n",
    "fake_pkg/base.py": '''
        class Base:
            """The base."""
            component_kind = "head"
            def __init__(self, input_shape: dict, num_classes: int, *, width: int = 8,
                         loss: "Loss | None" = None, **rest):
                """Made of parts."""
    ''',
    "fake_pkg/head.py": '''
        from dataclasses import dataclass, field
        import fake_pkg.base
        from .base import Base
        MODES = ("a", 'b')

        class Head1(Base):
            """First line.

            Further lines.
            """

        class Head2(fake_pkg.base.Base):
            def __init__(self, mode: str = "fast", modes: tuple = MODES, scale=2 ** 3, needed: float = 1.5, *, must):
                pass

        @dataclass
        class Flip:
            """A dataclass."""
            prob: float
            axes: list = field(default_factory=list)
            hidden: int = field(default=3, init=False)
    ''',
}


@pytest.fixture
def package(install):
    heads = {"Renamed": "fake_pkg:Renamed", "Head2": "fake_pkg.head:Head2", "Lost": "fake_pkg.nowhere:Lost"}
    groups = {"vertebra.heads": heads, "vertebra.transforms": {"Flip": "fake_pkg.head:Flip"}}
    return install("fake-pkg", groups, PACKAGE)


def test_a_class_is_described_through_reexport_and_inherited_constructor_without_import(package):
    found = describe("head", "Renamed")
    assert found.summary == "First line."
    assert found.docstring == "First line.\n\nFurther lines."
    assert found.distribution == "fake-pkg" and found.version == "1.0"
    assert found.location == f"{package / 'fake_pkg' / 'head.py'}:7"
    rows = [(a.name, a.annotation, a.default, a.required, a.injected) for a in found.arguments]
    assert rows == [
        ("input_shape", "dict", None, False, True),
        ("num_classes", "int", None, False, True),
        ("width", "int", "8", False, False),
        ("loss", "Loss | None", "None", False, False),
        ("**rest", "", None, False, False),
    ]
    assert not {"fake_pkg", "fake_pkg.head"} & set(sys.modules)


def test_defaults_are_shown_as_written_and_constants_by_value(package):
    rows = {a.name: (a.default, a.required) for a in describe("head", "Head2").arguments}
    assert rows == {
        "mode": ('"fast"', False),
        "modes": ("('a', 'b')", False),
        "scale": ("2 ** 3", False),
        "needed": ("1.5", False),
        "must": (None, True),
    }


def test_a_dataclass_is_described_by_its_fields(package):
    rows = [(a.name, a.default, a.required) for a in describe("transform", "Flip").arguments]
    assert rows == [("prob", None, True), ("axes", "list()", False)]


def test_a_component_whose_source_is_not_there_is_listed_with_its_problem(package):
    [lost] = [component for component in list_components("head") if component.name == "Lost"]
    assert lost.problem == "no source of fake_pkg.nowhere:Lost was found; import it: vertebra plugins check"


def test_a_file_with_a_syntax_error_is_listed_with_its_problem(install):
    install("broken", {"vertebra.heads": {"Broken": "fake_broken:Broken"}}, {"fake_broken.py": "class Broken(:\n"})
    [broken] = [component for component in list_components("head") if component.name == "Broken"]
    assert "invalid syntax" in broken.problem


def test_names_offered_twice_are_listed_qualified(install):
    for name in ("twin-a", "twin-b"):
        install(name, {"vertebra.losses": {"Twin": f"fake_{name[-1]}:Twin"}})
    names = [component.name for component in list_components("loss")]
    assert {"twin-a:Twin", "twin-b:Twin"} <= set(names) and "Twin" not in names


def test_a_registered_class_is_described_too():
    @HEADS.register()
    class InTest:
        """Defined in a test."""

        def __init__(
            self, num_classes: int, depth: int = 3, order: "Literal['rgb', 'bgr']" = "rgb", **more
        ) -> None: ...

    found = describe("head", "InTest")
    assert found.summary == "Defined in a test."
    assert found.location.startswith(f"{__file__}:")
    assert [(a.name, a.annotation, a.default, a.injected) for a in found.arguments] == [
        ("num_classes", "int", None, True),
        ("depth", "int", "3", False),
        ("order", "Literal['rgb', 'bgr']", "'rgb'", False),
        ("**more", "", None, False),
    ]


def test_an_unknown_name_is_the_registrys_error():
    with pytest.raises(RecipeError, match="no loss has the name 'FocalLos'"):
        describe("loss", "FocalLos")


def test_the_cores_own_components_can_all_be_described():
    problems = {
        f"{c.kind} {c.name}": c.problem for c in list_components() if c.distribution == "vertebra" and c.problem
    }
    assert problems == {}
    assert LOSSES.names()


def test_a_listing_of_sixty_components_imports_none_of_them(install):
    body = "class C{0}:\n    '''One of many.'''\n    def __init__(self, a: int = 1, b: float = 2.0): pass\n"
    files = {f"fake_many/m{i}.py": body.format(i) + "\ndef f(x):\n    return [x + 1, x * 2]\n" * 60 for i in range(60)}
    install("many", {"vertebra.parts": {f"C{i}": f"fake_many.m{i}:C{i}" for i in range(60)}}, files)
    assert len(list_components("part")) >= 60
    assert not [name for name in sys.modules if name.startswith("fake_many")]
