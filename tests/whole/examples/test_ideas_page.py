"""docs/ideas.md names every example, by the two lines that train it and predict with it."""

import re

import pytest
from whole_path import EXAMPLES

PAGE = (EXAMPLES.parent / "ideas.md").read_text(encoding="utf-8")
IDEAS = sorted(path.stem for path in EXAMPLES.glob("*.yaml") if path.stem != "bccd_fcos")


@pytest.mark.parametrize("idea", IDEAS)
def test_an_idea_has_a_section_of_two_lines_and_a_picture(idea):
    (section,) = [part for part in re.split(r"^## ", PAGE, flags=re.M) if f"docs/examples/{idea}.yaml" in part]
    title, first, *lines = [line for line in section.splitlines() if line]
    assert f"](#{title.lower().replace(' ', '-')})" in PAGE  # the table leads there
    assert first == "```console"
    assert lines[0] == f"$ vertebra train docs/examples/{idea}.yaml -o runs/{idea}"
    assert (
        lines[1].startswith(f"$ vertebra predict runs/{idea}/recipe.yaml") and f"-w runs/{idea}/final.pth" in lines[1]
    )
    (picture,) = re.findall(r"!\[.+\]\((images/ideas/.+\.png)\)", section)
    assert (EXAMPLES.parent / picture).stat().st_size < 400_000
    assert f"examples/{idea}.py" in section


def test_there_are_eight_ideas():
    assert len(IDEAS) == 8
