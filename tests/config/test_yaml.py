import math

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from vertebra.config import dump_yaml, read_yaml
from vertebra.config.yaml_reader import parse_yaml
from vertebra.errors import RecipeError


def read(text: str, tmp_path):
    path = tmp_path / "x.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_yaml(path)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001), ("1E5", 1e5), (".5", 0.5), ("-2.", -2.0), ("+3", 3), ("010", 10), ("0x1F", 31), ("0o17", 15),
        (".inf", math.inf), ("-.Inf", -math.inf), ("~", None), ("", None), ("null", None), ("true", True),
        ("False", False),
        ("no", "no"), ("Yes", "Yes"), ("on", "on"), ("off", "off"), ("12:30", "12:30"), ("2024-01-01", "2024-01-01"),
        ("1_000", "1_000"), ("0b11", "0b11"), ("=", "="), ("1e", "1e"), (".", "."), ('"1"', "1"), ("!!str 1", "1"),
        ("!!int '7'", 7), ("1.2.3", "1.2.3"), ("nan", "nan"), ("-", [None]),
    ],
)  # fmt: skip
def test_scalars_follow_yaml_1_2(text, value, tmp_path):
    found = read(f"key: {text}" if text != "-" else "key:\n  -", tmp_path).plain()["key"]
    assert found == value and type(found) is type(value)


def test_nan_is_a_float(tmp_path):
    assert math.isnan(read("x: .NaN", tmp_path).plain()["x"])


def test_each_value_knows_its_line(tmp_path):
    root = read("a: 1\nb:\n  c:\n    - x\n    - {y: 2,\n       z: 3}\n", tmp_path)
    b = root.value["b"]
    assert b.where.endswith("x.yaml:2")  # the key's line, not that of what it holds
    assert [item.where[-2:] for item in b.value["c"].value] == [":4", ":5"]
    assert b.value["c"].value[1].value["z"].where.endswith(":6")


def test_the_shared_good_and_awkward_files_read_as_they_are_meant(shared):
    folder = shared("data/bad/yaml")
    valid = read_yaml(folder / "valid.yaml").plain()
    assert valid == {"model": {"name": "tiny", "num_classes": 3}, "train": {"epochs": 1, "lr": 0.001}}
    assert read_yaml(folder / "float_as_string.yaml").plain() == {"train": {"lr": 0.001}}
    assert read_yaml(folder / "norway.yaml").plain() == {"names": ["no", "yes", "on", "off"]}
    assert read_yaml(folder / "empty.yaml").plain() is None


@pytest.mark.parametrize(
    ("file", "line", "words"),
    [
        ("python_object_apply", 2, "the tag !!python/object/apply:os.system is not allowed"),
        ("python_object_apply_exec", 1, "the tag !!python/object/apply:builtins.exec is not allowed"),
        ("python_object_new", 1, "the tag !!python/object/new:collections.OrderedDict is not allowed"),
        ("python_name", 2, "the tag !!python/name:os.system is not allowed"),
        ("python_tuple", 2, "the tag !!python/tuple is not allowed"),
        ("duplicate_keys", 3, "the key 'lr' occurs twice in one block; first at"),
        ("tabs", 2, "a tab where YAML requires spaces"),
        ("non_utf8", 1, "not UTF-8: byte 0xcb in column 9"),
    ],
)
def test_hostile_files_are_refused_with_file_and_line(shared, file, line, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = shared(f"data/bad/yaml/{file}.yaml")
    with pytest.raises(RecipeError) as caught:
        read_yaml(path)
    assert str(caught.value).startswith(f"{path}:{line}: ")
    assert words in str(caught.value)
    assert list(tmp_path.iterdir()) == []  # nothing ran: no PWNED_BY_YAML


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [1, 2\nb: 3\n", ":2: not valid YAML: expected ',' or ']'"),
        ("a: 'x\n", "not valid YAML: found unexpected end of stream"),
        ("a: b: c\n", ":1: not valid YAML: mapping values are not allowed here"),
        ("---\na: 1\n---\nb: 2\n", "expected a single document"),
        ("a: *nowhere\n", ":1: not valid YAML: found undefined alias"),
        ("a: &x [1, *x]\n", ":1: an alias (*name) points to a block that holds it"),
        ("b: &x {c: 1}\na:\n  <<: *x\n", ":3: merge keys (<<) are not supported; use _base_"),
        ("? [a, b]\n: 1\n", ":1: a key must be plain text"),
        ("!!python/name:os.system : 1\n", ":1: the tag"),
        ("a: !!binary aGVsbG8=\n", ":1: the tag !!binary is not allowed"),
        ("a: !local 3\n", ":1: the tag !local is not allowed"),
        ("a: !!int x\n", ":1: 'x' is not a value of type int"),
        ("a: \x07\n", ":1: character U+0007 may not stand in a YAML file"),
        (b"a: 1\nb: \xff\n", ":2: not UTF-8: byte 0xff in column 4"),
        ("a: " + "[" * 5000, "nested too deeply"),
        ("a: " + "x" * (1 << 21), "larger than 1 MiB"),
    ],
)
def test_what_is_not_plain_yaml_is_refused_in_words(text, words, tmp_path):
    with pytest.raises(RecipeError) as caught:
        read(text, tmp_path)
    assert words in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path / "x.yaml"))


def test_a_bomb_of_aliases_is_refused_at_once(tmp_path):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 30)]
    with pytest.raises(RecipeError, match=r"x.yaml:5: aliases .* more than 50000 values"):
        read("\n".join(lines), tmp_path)


def test_an_alias_may_be_used_twice(tmp_path):
    assert read("a: &x {b: 1}\nc: *x\n", tmp_path).plain() == {"a": {"b": 1}, "c": {"b": 1}}


def test_a_byte_order_mark_and_windows_line_ends_are_no_problem(tmp_path):
    assert read(b"\xef\xbb\xbfa: 1\r\nb: 2\r\n", tmp_path).plain() == {"a": 1, "b": 2}


def test_a_missing_file_says_so(tmp_path):
    with pytest.raises(RecipeError, match=r"gone.yaml: cannot be read: No such file"):
        read_yaml(tmp_path / "gone.yaml")


TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    ["no", "1e-3", "~", "0x1", "2024-01-01", "1_0", ".5", "- a", "a: b", "12:30"]
)
SCALARS = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | TEXTS
PLAIN = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3))


@settings(max_examples=150, deadline=None)
@given(PLAIN)
def test_what_is_written_reads_back_the_same(data):
    from pathlib import Path

    text = dump_yaml({"data": data})
    found = parse_yaml(text, "dumped", Path()).plain()["data"]
    assert found == data
    assert repr(found) == repr(data)  # 1 is not True, 1.0 is not 1


def test_other_readers_of_our_yaml_see_no_norway():
    data = {"a": ["no", "1e-3", "0x10", "12:30", "2024-01-01", "~"], "b": 1e-5}
    assert yaml.safe_load(dump_yaml(data)) == data
