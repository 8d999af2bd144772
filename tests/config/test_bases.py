import pytest

from vertebra.config.bases import apply_overrides, merge, read_with_bases
from vertebra.config.yaml_reader import from_plain
from vertebra.errors import PluginError, RecipeError


def merged(below, above, path=()):
    from pathlib import Path

    return merge(from_plain(below, "below", Path()), from_plain(above, "above", Path()), path).plain()


def resolve(name, tmp_path, overrides=()):
    return apply_overrides(read_with_bases(tmp_path / name), overrides).plain()


def test_blocks_merge_key_by_key_and_lists_are_replaced():
    assert merged({"a": {"b": 1, "c": 2}, "d": [1, 2]}, {"a": {"c": 3}, "d": [4]}) == {"a": {"b": 1, "c": 3}, "d": [4]}


def test_another_component_replaces_the_block_whole():
    below = {"backbone": {"name": "ResNet", "depth": 50}}
    assert merged(below, {"backbone": {"name": "VGG"}}) == {"backbone": {"name": "VGG"}}
    assert merged(below, {"backbone": {"name": "ResNet", "norm": "bn"}}) == {
        "backbone": {"name": "ResNet", "depth": 50, "norm": "bn"}
    }
    assert merged(below, {"backbone": {"depth": 18}}) == {"backbone": {"name": "ResNet", "depth": 18}}


def test_a_dataset_is_another_one_by_its_format_and_not_by_its_name():
    below = {"train": {"format": "coco", "name": "a", "images": "x"}}
    assert merged(below, {"train": {"name": "b"}}) == {"train": {"format": "coco", "name": "b", "images": "x"}}
    assert merged(below, {"train": {"format": "voc"}}) == {"train": {"format": "voc"}}


def test_arguments_can_be_laid_over_a_bare_component_name():
    assert merged({"neck": "FPN"}, {"neck": {"out_channels": 64}}) == {"neck": {"name": "FPN", "out_channels": 64}}
    assert merged({"neck": "FPN"}, {"neck": {"name": "PAN"}}) == {"neck": {"name": "PAN"}}


def test_null_replaces_a_component_but_an_empty_section_changes_nothing():
    assert merged({"model": {"neck": {"name": "FPN"}}}, {"model": {"neck": None}}) == {"model": {"neck": None}}
    assert merged({"train": {"steps": 5}}, {"train": None}) == {"train": {"steps": 5}}


def test_of_steps_and_epochs_the_later_one_counts():
    assert merged({"train": {"steps": 5}}, {"train": {"epochs": 2}}) == {"train": {"epochs": 2}}
    assert merged({"train": {"epochs": 5}}, {"train": {"steps": 2}}) == {"train": {"steps": 2}}
    assert merged({"other": {"steps": 5}}, {"other": {"epochs": 2}}) == {"other": {"steps": 5, "epochs": 2}}


def test_bases_are_laid_over_each_other_in_order_and_found_from_their_own_folder(write, tmp_path):
    write("lib/one.yaml", "seed: 1\ntrain: {steps: 1, batch_size: 1}")
    write("lib/two.yaml", "_base_: one.yaml\ntrain: {batch_size: 2, workers: 2}")
    write("lib/three.yaml", "train: {batch_size: 3}")
    write("top.yaml", "_base_: [lib/two.yaml, lib/three]\noutput: x")
    assert resolve("top.yaml", tmp_path) == {
        "seed": 1, "output": "x", "train": {"steps": 1, "batch_size": 3, "workers": 2}
    }  # fmt: skip


def test_one_base_may_be_reached_twice_but_not_in_a_circle(write, tmp_path):
    write("root.yaml", "seed: 1")
    write("left.yaml", "_base_: root.yaml")
    write("diamond.yaml", "_base_: [left.yaml, root.yaml]")
    assert resolve("diamond.yaml", tmp_path) == {"seed": 1}
    write("a.yaml", "_base_: b.yaml")
    write("b.yaml", "_base_: a.yaml")
    with pytest.raises(RecipeError, match=r"_base_ is circular: a.yaml -> b.yaml -> a.yaml"):
        resolve("a.yaml", tmp_path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("seed: 1\n_base_: bsae.yaml", "top.yaml:2: _base_: no such recipe: bsae.yaml.\n  Nearest: base.yaml"),
        ("_base_: {a: 1}", "top.yaml:1: _base_ is a block, expected a path or a list of paths"),
        ("_base_: [3]", "top.yaml:1: _base_ is a number, expected"),
        ("train:\n  _base_: base.yaml", "top.yaml:2: train._base_: _base_ may only stand at the top"),
        ("- 1", "top.yaml:1: a recipe is a block of `key: value` lines, got a list"),
        ("", "top.yaml: the file is empty"),
    ],
)
def test_a_wrong_base_is_told_with_its_line(write, tmp_path, text, words):
    write("top.yaml", text)
    with pytest.raises(RecipeError) as caught:
        resolve("top.yaml", tmp_path)
    assert str(caught.value).startswith(words)


def test_an_unknown_plugin_prefix_suggests_a_near_one(write, tmp_path):
    write("top.yaml", "_base_: retinante:retinanet_r50_fpn")
    with pytest.raises(PluginError, match=r"top.yaml:1: _base_: retinante:.* no installed plugin ships recipes as"):
        resolve("top.yaml", tmp_path)


def test_overrides_set_values_components_and_items_of_lists(write, tmp_path):
    write(
        "r.yaml", "model: {backbone: {name: A, depth: 1}, neck: F}\ndata: {t: [{name: X, p: 1}, Y]}\ntrain: {steps: 3}"
    )
    found = resolve(
        "r.yaml",
        tmp_path,
        ["train.lr=1e-3", "model.backbone.name=B", "model.backbone.width=2", "model.neck.c=5", "data.t.0.p=7",
         "data.t.1={name: Z, q: [no]}", "new.key=a=b", "train.epochs=2"],
    )  # fmt: skip
    assert found == {
        "model": {"backbone": {"name": "B", "width": 2}, "neck": {"name": "F", "c": 5}},
        "data": {"t": [{"name": "X", "p": 7}, {"name": "Z", "q": ["no"]}]},
        "train": {"lr": 0.001, "epochs": 2},
        "new": {"key": "a=b"},
    }


def test_overrides_may_be_mappings(write, tmp_path):
    write("r.yaml", "train: {steps: 3, o: {name: A, lr: 1}}")
    found = resolve(
        "r.yaml", tmp_path, {"train.steps": 4, "train.o": {"lr": 2}, "data": {"root": tmp_path, "s": (1, 2)}}
    )
    assert found == {
        "train": {"steps": 4, "o": {"name": "A", "lr": 2}}, "data": {"root": str(tmp_path), "s": [1, 2]}
    }  # fmt: skip
    assert resolve("r.yaml", tmp_path, ["train.steps=1", {"train.steps": 2}])["train"]["steps"] == 2


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("train.steps", "override 'train.steps': expected key=value"),
        ("=3", "override '=3': the key '' is not of the form section.key"),
        ("a..b=3", "is not of the form section.key"),
        (
            "data.t.5=1",
            "override 'data.t.5=1': data.t is a list of 1 (r.yaml:1); '5' is not one of its positions 0 to 0",
        ),
        ("data.t.x=1", "'x' is not one of its positions"),
        ("a=[1, 2", "override 'a=[1, 2': not valid YAML"),
        ("a=!!python/name:os.system", "override 'a=!!python/name:os.system': the tag !!python/name:os.system is not"),
        ("_base_=x.yaml", "_base_ cannot be overridden"),
        ("requires=[x]", "requires cannot be overridden"),
        ({"a": object}, "override 'a': a recipe cannot hold a type"),
    ],
)
def test_a_wrong_override_is_told(write, tmp_path, override, words):
    write("r.yaml", "data: {t: [1]}")
    with pytest.raises(RecipeError) as caught:
        resolve("r.yaml", tmp_path, [override])
    assert words in str(caught.value)
