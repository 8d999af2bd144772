"""A `type: ignore` is rare, names its code and gives a reason; nothing else silences the type checker in a file."""

import re

import pytest

MOST = 40  # in the core and all plugins together
IGNORE = re.compile(r"#\s*type:\s*ignore", re.IGNORECASE)
GOOD = re.compile(r"# type: ignore\[[a-z]+(-[a-z]+)*(, [a-z]+(-[a-z]+)*)*\]  # (?!noqa|type:)\S+ \S+")
WHOLE_FILE = re.compile(r"#\s*mypy:", re.IGNORECASE)  # settings of mypy for one file, on a line of their own


def find_ignores(source: str) -> tuple[int, list[str]]:
    """The number of ignores in a file's text, and the lines that are not `# type: ignore[code]  # reason`."""
    lines = [(number, line.strip()) for number, line in enumerate(source.splitlines(), start=1)]
    ignores = [line for _, line in lines if IGNORE.search(line)]
    return len(ignores), [
        f"line {number}: {line}"
        for number, line in lines
        if WHOLE_FILE.match(line) or (IGNORE.search(line) and not GOOD.search(line))
    ]


def test_every_ignore_in_core_and_plugins_names_its_code_and_a_reason(repository):
    files = sorted(path for folder in ("core", "plugins") for path in (repository / folder).rglob("*.py"))
    assert len(files) > 300
    total, wrong = 0, []
    for path in files:
        count, bad = find_ignores(path.read_text(encoding="utf-8"))
        total += count
        wrong += [f"{path.relative_to(repository)}, {text}" for text in bad]
    assert not wrong, "expected `# type: ignore[code]  # reason`:\n" + "\n".join(wrong)
    assert total <= MOST, f"{total} ignores, at most {MOST} are allowed: fix the types instead"


def test_no_module_is_unchecked(repository):
    settings = (repository / "pyproject.toml").read_text(encoding="utf-8")
    checked = settings.split("[tool.mypy]")[1]
    assert "ignore_errors" not in checked and "follow_imports" not in checked


@pytest.mark.parametrize(
    "line",
    [
        "x = f()  # type: ignore",
        "x = f()  #type:ignore[arg-type]",
        "x = f()  # type: ignore  # torch has no type for it",
        "x = f()  # type: ignore[]  # torch has no type for it",
        "x = f()  # type: ignore[arg-type]",
        "x = f()  # type: ignore[arg-type] # torch has no type for it",
        "x = f()  # type: ignore[arg-type]  # needed",
        "x = f()  # type: ignore[arg-type]  # noqa: E501 and more",
        "# type: ignore",
        "# mypy: ignore-errors",
        "    # mypy: disable-error-code=arg-type",
    ],
)
def test_a_line_against_the_rules_is_found(line):
    assert find_ignores(f"import os\n{line}\n")[1] == [f"line 2: {line.strip()}"]


def test_lines_by_the_rules_are_counted_and_pass():
    source = (
        "x = f()  # type: ignore[arg-type]  # torch has no type for it\n"
        "y = x.a  # type: ignore[attr-defined, union-attr]  # set by the hook above\n"
        'text = "of some type: ignored labels"\n'
    )
    assert find_ignores(source) == (2, [])
