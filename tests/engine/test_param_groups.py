"""Groups of parameters by name, depth and kind; the table that shows them."""

import pytest
import torch
from torch import nn

from vertebra import Backbone, BaseModel, RecipeError, Trainer, build_model, load_recipe
from vertebra.engine import NormAndBias, ParameterGroup
from vertebra.engine.optimizers import SGD, AdamW
from vertebra.models.backbones.resnet import ResNet
from vertebra.models.parameter_layers import parameter_layers


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4)
        self.mix = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))


class Transformer(Backbone):
    """The shape of a plain ViT: embedding, positions, blocks, a last norm."""

    def __init__(self, depth: int = 12) -> None:
        super().__init__()
        self.position = nn.Parameter(torch.zeros(1, 4))
        self.embedding = nn.Linear(3, 4)
        self.blocks = nn.ModuleList(Block() for _ in range(depth))
        self.norm = nn.LayerNorm(4)


class Detector(BaseModel):
    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(4, 2)


def settings_of(optimizer, model):
    names = {parameter: name for name, parameter in model.named_parameters()}
    return {names[p]: (g["lr"], g["weight_decay"]) for g in optimizer.param_groups for p in g["params"]}


def test_layers_of_a_plain_transformer_are_those_of_vitdet():
    layers = parameter_layers(Transformer())
    assert len(layers) == 13  # the embedding with the positions, and 12 blocks
    assert layers[0] == ["position", "embedding.weight", "embedding.bias"]
    assert layers[3][0] == "blocks.2.norm.weight" and len(layers[3]) == 6
    assert layers[12][-2:] == ["norm.weight", "norm.bias"]


@pytest.mark.parametrize(("depth", "layers"), [(18, 9), (50, 17), (101, 34)])
def test_layers_of_a_resnet_are_its_stem_and_blocks(depth, layers):
    backbone = ResNet(depth=depth)
    found = parameter_layers(backbone)
    assert len(found) == layers
    assert [name for names in found for name in names] == [name for name, _ in backbone.named_parameters()]


def test_every_backbone_has_each_parameter_in_one_layer():
    timm = pytest.importorskip("timm", reason="timm is not installed")
    assert timm
    from vertebra.models.backbones.timm import TimmBackbone

    for name, count in (("vit_tiny_patch16_224", 13), ("resnet18", 9), ("convnext_tiny", 22), ("efficientnet_b0", 17)):
        backbone = TimmBackbone(name)
        found = parameter_layers(backbone)
        assert len(found) == count, name
        assert sorted(name for names in found for name in names) == sorted(n for n, _ in backbone.named_parameters())


def test_rates_fall_layer_by_layer_toward_the_input():
    model = Detector(Transformer(depth=2))
    found = settings_of(SGD(lr=8.0, groups=[ParameterGroup(layer_decay=0.5)]).build(model), model)
    assert found["backbone.position"][0] == found["backbone.embedding.weight"][0] == 1.0  # 8 * 0.5 ** 3
    assert found["backbone.blocks.0.mix.0.weight"][0] == 2.0
    assert found["backbone.blocks.1.mix.0.weight"][0] == found["backbone.norm.weight"][0] == 4.0
    assert found["head.weight"][0] == 8.0


def test_a_backbone_may_say_what_its_layers_are():
    class Odd(Transformer):
        def parameter_layers(self):
            return [["embedding.weight"], ["blocks.0.norm.weight"]]

    model = BaseModel()
    model.student = Detector(Odd())
    found = settings_of(SGD(lr=1.0, groups=[ParameterGroup(layer_decay=0.5)]).build(model), model)
    assert found["student.backbone.embedding.weight"][0] == 0.25
    assert found["student.backbone.blocks.0.norm.weight"][0] == 0.5
    assert found["student.backbone.blocks.1.norm.weight"][0] == 1.0


def test_entries_add_up_in_their_order():
    model = Detector(Transformer(depth=2))
    groups = [
        ParameterGroup(match="backbone", lr_factor=0.1, weight_decay=0.5),
        ParameterGroup(match=["backbone.blocks.*", "head.bias"], lr_factor=0.5),
        ParameterGroup(norm_and_bias=NormAndBias(weight_decay=0.0)),
        ParameterGroup(match="*.1.mix.0.weight", weight_decay=0.25, lr_factor=0.0),
    ]
    found = settings_of(AdamW(lr=1.0, weight_decay=1.0, weight_decay_norm=None, groups=groups).build(model), model)
    assert found["backbone.embedding.weight"] == (0.1, 0.5)
    assert found["backbone.embedding.bias"] == (0.1, 0.0)
    assert found["backbone.blocks.0.norm.weight"] == (0.05, 0.0)
    assert found["backbone.blocks.0.mix.0.weight"] == (0.05, 0.5)
    assert found["backbone.blocks.1.mix.0.weight"] == (0.0, 0.25)
    assert found["head.weight"] == (1.0, 1.0)
    assert found["head.bias"] == (0.5, 0.0)


def test_the_factor_of_backbones_is_for_each_of_them():
    model = BaseModel()
    model.student, model.encoder = Detector(Transformer()), Transformer()
    found = settings_of(SGD(lr=1.0, backbone_lr_factor=0.5).build(model), model)
    assert found["student.backbone.norm.weight"][0] == found["encoder.norm.weight"][0] == 0.5
    assert found["student.head.weight"][0] == 1.0
    with pytest.raises(ValueError, match=r"backbone_lr_factor is 0\.5, but the model has no backbone"):
        SGD(backbone_lr_factor=0.5).build(nn.Linear(2, 2))


QUICK = "retinanet:retinanet_shapes_quick"
SHORT = ["train.epochs=null", "train.steps=2", "data.workers=0", "train.device=cpu", "data.val=null"]


def test_a_recipe_says_it_and_the_run_has_it(tmp_path):
    groups = "train.optimizer.groups=[{match: backbone.*, lr_factor: 0.1}, {norm_and_bias: {weight_decay: 0}}]"
    recipe = load_recipe(QUICK, [*SHORT, groups])
    trainer = Trainer(recipe, tmp_path / "run")
    rates = settings_of(trainer.optimizer, trainer.model)
    assert rates["backbone.res3.0.conv1.weight"] == (pytest.approx(1e-4), 0.01)
    assert {decay for name, (_, decay) in rates.items() if name.endswith("bias")} == {0.0}
    trainer.train()
    assert load_recipe(tmp_path / "run/recipe.yaml").train.optimizer == recipe.train.optimizer


@pytest.mark.parametrize(
    ("groups", "words"),
    [
        ("[{match: backbon.*, lr_factor: 0.1}]", r"groups\.0\.match: .* 'backbon\.\*'.*Nearest: backbone"),
        ("[{match: backbone.*}]", "match changes nothing; expected lr_factor, weight_decay, layer_decay or"),
        ("[{layer_decay: 0}]", "layer_decay is 0, expected a factor above 0, up to 1"),
        ("[{lr_factor: -1}]", "lr_factor is -1, expected a number of 0 or more"),
        ("[{norm_and_bias: 3}]", "norm_and_bias is 3, expected a block of lr_factor, weight_decay or null"),
        ("[{match: heads.*, layer_decay: 0.5}]", r"groups\.0\.layer_decay is for backbones, but no parameter of one"),
    ],
)  # fmt: skip
def test_mistakes_are_named(groups, words):
    with pytest.raises(RecipeError, match=f"(?s){words}"):
        Trainer(load_recipe(QUICK, [*SHORT, f"train.optimizer.groups={groups}"]))


def test_the_table_shows_every_parameter(command_line):
    freeze = (
        "train.freeze=[{match: backbone.stem}, {match: '*.res2.*', until: 100}, {match: '*.res2.0.*', until: 1 epoch}]"
    )
    options = [freeze, "train.optimizer.groups=[{layer_decay: 0.5}]", "train.optimizer.lr=1"]
    lines = command_line("config", QUICK, "--parameters", *options, code=0).stdout.splitlines()
    model = build_model(load_recipe(QUICK))
    assert [line.split()[0] for line in lines[1:-2]] == [name for name, _ in model.named_parameters()]
    row = {line.split()[0]: line.split(None, 1)[1] for line in lines[1:-2]}
    assert row["backbone.stem.conv1.weight"].split() == ["64x3x7x7", "-", "-", "frozen"]
    assert row["backbone.res2.0.conv1.weight"].split() == [
        *("64x64x3x3", "0.00390625", "0.01"),  # 0.5 ** 8: the first of 8 blocks
        *("frozen", "until", "step", "100,", "frozen", "for", "1", "epoch"),
    ]
    assert row["backbone.res5.1.conv1.norm.weight"].split() == ["512", "0.5", "0"]
    total = sum(parameter.numel() for parameter in model.parameters())
    assert lines[-1] == f"{total - 9536:,} trained numbers in 18 groups, 9,536 never trained"
