"""Finds words that this project does not use: British spellings, and phrases that are hard to read.

    python tools/lint_words.py            every tracked text file
    python tools/lint_words.py FILE...    these files

Prints `file:line: phrase -> suggestion` and exits with code 1 if it finds any. Phrases are found within one line.
A line that needs such a word for a good reason ends with a comment `words: ok` and the reason.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["RULES", "Rule", "find_words", "main", "tracked_files"]

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("core", "plugins", "tests", "docs", "tools", "configs")
TOP_FILES = (
    *("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "Makefile"),
    *("pyproject.toml", "setup.py", "conftest.py"),
)
ENDINGS = (".py", ".md", ".yaml", ".toml", ".template", ".html", ".css", ".js", ".sh")
NOT_CHECKED = ("tools/lint_words.py", "tests/whole/test_words.py")  # the rules themselves, and their examples
MARKER = "words: ok"
EXEMPT = re.compile(
    r"https?://\S+"
    r"|fold_neighbours"  # a public name of vertebra.models.fuse
    r"|[\"`]colour[\"`]"  # a key of class files, which other tools write
)
"""Parts of a line that are not text of ours: addresses, public names, keys of other tools' files."""

BRITISH = {
    "artefact": "artifact",
    "behaviour": "behavior",
    "catalogue": "catalog",
    "centre": "center",
    "colour": "color",
    "defence": "defense",
    "favour": "favor",
    "fibre": "fiber",
    "flavour": "flavor",
    "grey": "gray",
    "honour": "honor",
    "judgement": "judgment",
    "learnt": "learned",
    "licence": "license",
    "misspelt": "misspelled",
    "modelled": "modeled",
    "modelling": "modeling",
    "neighbour": "neighbor",
    "offence": "offense",
    "sceptic": "skeptic",
    "theatre": "theater",
    "whilst": "while",
}
"""British word -> American word, also inside longer words and names (`neighbours`, `test_colour_jitter`)."""

DOUBLED = "cancel|channel|fuel|initial|label|level|marshal|signal|total|travel|tunnel"
"""Verbs whose final l is not doubled."""

IZE = (
    "binar|categor|character|custom|digit|discret|emphas|equal|factor|final|general|initial|linear|local|material"
    "|maxim|memo|memor|minim|normal|optim|organ|parallel|penal|polar|priorit|quant|random|raster|real|recogn|regular"
    "|serial|special|stabil|standard|summar|symmetr|synchron|token|util|vector|visual"
)
"""Stems of verbs that end in -ize."""


@dataclass(frozen=True)
class Rule:
    """A phrase to avoid.

    Args:
        pattern: regular expression on a line in lower case. It starts at the start of a word, unless `inside`.
        suggestion: what to write; may use groups of the pattern (`\\1`).
        example: a line in which the rule finds something.
        good: lines that look alike and are fine.
        inside: the phrase may also start inside a word or a name.
    """

    pattern: str
    suggestion: str
    example: str
    good: tuple[str, ...] = ()
    inside: bool = False

    def find(self, line: str) -> Iterator[tuple[str, str]]:
        """(phrase, suggestion) for each place in a line in lower case."""
        for match in re.finditer(self.pattern if self.inside else rf"\b(?:{self.pattern})", line):
            yield match.group(), match.expand(self.suggestion)


RULES = (
    *(Rule(british, american, f"the {british}s of an image", inside=True) for british, american in BRITISH.items()),
    Rule(
        rf"(?<![a-z])((?:un|re)?(?:{DOUBLED}))l(ed|ing|er)\b",
        r"\1\2",
        "unlabelled pixels",
        ("labeled", "filled"),
        inside=True,
    ),
    Rule(
        rf"(?<![a-z])((?:un|re|de)?(?:{IZE}))is(e|ed|es|er|ers|ing|ations?)\b",
        r"\1iz\2",
        "batch normalisation",
        ("normalization", "an optimistic organism", "otherwise noise"),
        inside=True,
    ),
    Rule(r"analys(e|ed|er|ing)\b", r"analyz\1", "analyse the errors", ("several analyses",)),
    Rule(
        r"(?<!there )(is|are|was|were) no (?!(?:longer|more|less|doubt|matter|one)\b|\w+er than\b)(?=\w)",
        r"\1 not a ",
        "segmentation is no list of polygons",
        ("there is no such file", "there are no objects", "weights are no longer finite", "is no smaller than the map"),
    ),
    Rule(r"(is|are) none (of|that)\b", r"\1 not one \2", "the class is none of those"),
    Rule(r"mend(s|ed|ing|able)?\b", r"fix\1", "how to mend it", ("recommended", "amend")),
    Rule(r"who met whom\b", "the matches", "an array of who met whom"),
    Rule(
        r"(?:who|it|that|which|detections?|was|were|has|ever|none|nothing) met\b"
        r"|met (?:an?|the|no|none|nothing|what|whom|another|anything|objects?|crowds?|by)\b"
        r"|meets? (?:an?|no|any|another) (?:object|detection|crowd|ground)|meets (?:them|none|nothing)\b",
        "match, matched, unmatched",
        "detections that met an object",
        ("met = best >= iou", "four images meet in one point"),
    ),
    Rule(r"mates?\b", "match", "the mate of a detection", ("estimate", "automate")),
    Rule(r"true (box|object)(es|s)?\b", r"ground-truth \1\2", "M true boxes in an image", ("true labels",)),
    Rule(r"sure(?:r|st|ness)\b", "highest score, higher score, confidence", "the surest detections first"),
    Rule(r"kept in an image\b", "maximum number of detections per image", "detections kept in an image"),
    Rule(r"of each image at most\b", "at most N per image", "of each image at most 100"),
    Rule(
        r"the (?:worse|better) one goes\b|by a greater iou\b|with a greater iou,? the\b",
        "IoU threshold of NMS: the box with the lower score is dropped",
        "of two boxes with a greater IoU, the worse one goes",
    ),
    Rule(r"for all that is written\b", "output directory", "a folder for all that is written"),
    Rule(r"(lacks?)\b", "has no, does not have, is missing", "the weights lack an entry", ("lacking = []", "black")),
    Rule(
        r"(?:left|leaves?|leaving) (?:\w+ )?out\b(?! of (?:the )?(?:box|order))",
        "drop, skip, ignore, omit, remove",
        "such images are left out",
        ("unpaired: leave_out", "what is left outside"),
    ),
    Rule(r"where nothing is said\b", "default: X", "8 where nothing is said"),
    Rule(r"(?:\"\"\"|: )how many\b", "number of", '"""How many images."""', inside=True),
    Rule(r"so many\b", "this many, at most N", "stop after so many images"),
    Rule(r"shared? (?:\w+ )?evenly\b|shared out\b", "divisible by", "2 processes cannot share evenly"),
    Rule(r"steps? that learns?\b", "training step", "a step that learns"),
    Rule(r"an own\b", "a subclass of, a separate, a custom", "an own way to predict"),
    Rule(r"(?:a class|one) of one's own\b", "subclass, override", "a class of one's own"),
    Rule(
        r"as if\b.{0,40}\bwere not (?:there|installed)\b",
        "ignore",
        "do as if this plugin were not there",
    ),
    Rule(r"(is|are|was|were) (?:said|told)\b(?! apart)", r"\1 logged, reported", "a wrong name is told first"),
    Rule(
        r"tells (?:where|which|why|that|what|how|of|`|\w+ and \w+)",
        "names, reports, warns",
        "an error that tells where it stands",
        ("a color that tells classes apart",),
    ),
    Rule(r"(is|are|was|were) asked for\b", r"\1 requested", "the size that was asked for", ("you asked for a neck",)),
    Rule(r"habits?\b", "convention", "Detectron2's habits"),
    Rule(r"by heart\b", "overfit", "eight images by heart"),
    Rule(r"comes? along\b", "is installed, is loaded", "torch and torchvision come along"),
    Rule(r"what a run leaves\b", "run folder, checkpoint", "read what a run leaves"),
)


def tracked_files() -> list[Path]:
    """The text files under version control that are checked."""
    listed = subprocess.run(
        ["git", "-c", f"safe.directory={ROOT}", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    return [
        ROOT / name
        for name in listed.split("\0")
        if (name in TOP_FILES or (name.split("/")[0] in FOLDERS and name.endswith(ENDINGS)))
        and name not in NOT_CHECKED
        and (ROOT / name).is_file()
    ]


_ANYWHERE = re.compile("|".join(rule.pattern for rule in RULES if rule.inside))
_AT_A_WORD = re.compile(r"\b(?:" + "|".join(rule.pattern for rule in RULES if not rule.inside) + ")")


def find_words(text: str) -> Iterator[tuple[int, str, str]]:
    """(line, phrase, suggestion) for each phrase in a text, by line."""
    for number, line in enumerate(text.lower().splitlines(), start=1):
        if not (_ANYWHERE.search(line) or _AT_A_WORD.search(line)) or MARKER in line:
            continue
        checked = EXEMPT.sub("", line)
        for rule in RULES:
            for phrase, suggestion in rule.find(checked):
                yield number, phrase.strip(), suggestion


def main(names: list[str]) -> int:
    found = 0
    for path in [Path(name).resolve() for name in names] or tracked_files():
        for line, phrase, suggestion in find_words(path.read_text(encoding="utf-8")):
            place = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path
            print(f"{place}:{line}: {phrase} -> {suggestion}")
            found += 1
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
