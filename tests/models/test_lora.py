"""LoRA: only adapters of a backbone change, by recipe lines, and what it says where it cannot adapt."""

import sys

import pytest
import torch

from vertebra import Trainer, build_model, load_recipe
from vertebra.errors import SetupError
from vertebra.export import export_onnx
from vertebra.models import Backbone, Batch, ShapeSpec
from vertebra.models.backbones.lora import LoRA
from vertebra.models.backbones.timm import TimmBackbone
from vertebra.models.convolution import ConvNorm
from vertebra.models.weights import load_weights
from vertebra.testing.training import BreakAt, Interrupted

VIT = {"model": "vit_tiny_patch16_224", "out_indices": [2], "depth": 3, "embed_dim": 48}
SHAPES = {"format": "shapes", "images": 8, "size": [64, 96]}


def lora_recipe(lora=(), adapters=True, **settings):
    """A RetinaNet on a small vision transformer, with adapters or without."""
    backbone = {"name": "LoRA", "backbone": {"name": "timm", **VIT}, "rank": 4, **dict(lora)}
    if not adapters:
        backbone = backbone["backbone"]
    neck = {"name": "SimpleFeaturePyramid", "out_channels": 32, "scale_factors": [2, 1, 0.5]}
    data = {"data.train": {**SHAPES, "split": "train"}, "data.val": None, "data.workers": 0}
    train = {"train.steps": 3, "train.batch_size": 2, "train.device": "cpu", "evaluate.report": False}
    return load_recipe(
        "retinanet:retinanet_shapes_quick", [{"model.backbone": backbone, "model.neck": neck}, data, train, settings]
    )


def copied(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def test_of_the_backbone_only_the_adapters_change_by_training(tmp_path):
    trainer = Trainer(lora_recipe(), tmp_path / "run")
    before = copied(trainer.model)
    trainer.train()
    changed = {name for name, value in trainer.model.state_dict().items() if not torch.equal(value, before[name])}
    adapters = {
        f"backbone.backbone.model.model.blocks.{block}.attn.qkv.lora_{side}.default.weight"
        for block in range(3)
        for side in "AB"
    }
    assert {name for name in changed if name.startswith("backbone.")} == adapters
    assert any(name.startswith("neck.") for name in changed) and any(name.startswith("heads.") for name in changed)
    assert before["backbone.backbone.model.model.blocks.0.attn.qkv.lora_A.default.weight"].shape == (4, 48)


def test_a_run_with_adapters_resumes_to_the_same_bits(tmp_path):
    recipe = lora_recipe({"dropout": 0.1}, **{"train.checkpoint_every": 1})
    whole = Trainer(recipe, tmp_path / "whole")
    whole.train()
    with pytest.raises(Interrupted):
        Trainer(recipe, tmp_path / "run", hooks=[BreakAt(2)]).train()
    resumed = Trainer(recipe, tmp_path / "run", resume=True)
    assert resumed.step == 2
    resumed.train()
    for name, value in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], value), name


def test_rates_fall_toward_the_input_by_a_recipe_line(tmp_path):
    recipe = lora_recipe(**{"train.optimizer": {"name": "AdamW", "lr": 8.0, "groups": [{"layer_decay": 0.5}]}})
    trainer = Trainer(recipe, tmp_path / "run")
    named = {parameter: name for name, parameter in trainer.model.named_parameters()}
    rates = {
        named[parameter]: group["initial_lr"] if "initial_lr" in group else group["lr"]
        for group in trainer.optimizer.param_groups
        for parameter in group["params"]
    }
    blocks = [rates[f"backbone.backbone.model.model.blocks.{b}.attn.qkv.lora_A.default.weight"] for b in range(3)]
    assert blocks[0] * 4 == blocks[1] * 2 == blocks[2]
    assert not any("base_layer" in name or "patch_embed" in name for name in rates)


def test_weights_of_a_model_without_adapters_load(tmp_path):
    plain = build_model(lora_recipe(adapters=False), num_classes=3)
    torch.save(plain.state_dict(), tmp_path / "plain.pth")
    recipe = lora_recipe(**{"model.weights": str(tmp_path / "plain.pth")})
    adapted = Trainer(recipe, tmp_path / "run").model.state_dict()
    weights = plain.state_dict()
    renamed = {name.replace("backbone.backbone.", "backbone.").replace(".base_layer.", "."): name for name in adapted}
    assert weights.keys() == {name for name in renamed if ".lora_" not in name}
    for name, value in weights.items():
        assert torch.equal(adapted[renamed[name]], value), name
    again = build_model(lora_recipe(), num_classes=3)  # its own weights load as they are
    load_weights(again, adapted)
    assert all(torch.equal(value, adapted[name]) for name, value in again.state_dict().items())


def test_it_answers_as_the_backbone_at_first_and_passes_the_batch_on():
    torch.manual_seed(0)
    plain = TimmBackbone(**VIT).eval()
    images = torch.randn(2, 3, 64, 96)
    images[0, :, 32:] = 0
    batch = Batch(images, [(32, 96), (64, 96)], [(32, 96), (64, 96)], [{}, {}])
    with torch.no_grad():
        expected = plain(images, batch)["stage2"]
        adapted = LoRA(plain, targets=["qkv", "attn.proj", "fc1"]).eval()
        assert torch.equal(adapted(images, batch)["stage2"], expected)
        assert not torch.equal(adapted(images)["stage2"], expected)
    assert adapted.output_shape() == plain.output_shape()
    assert adapted.size_divisibility == 16
    names = [name for name, one in adapted.named_parameters() if one.requires_grad]
    assert len(names) == 3 * 3 * 2 and all(".lora_" in name for name in names)


def test_a_convolutional_backbone_keeps_its_statistics():
    adapted = LoRA(TimmBackbone("resnet10t", out_indices=[4]), targets=["conv2"], rank=2).train()
    before = copied(adapted)
    adapted(torch.randn(2, 3, 64, 64))["stage4"].sum().backward()
    after = adapted.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert {name.rpartition(".lora_")[1] for name, one in adapted.named_parameters() if one.grad is not None} == {
        ".lora_"
    }


def test_a_target_adapts_no_subclass_whose_name_ends_alike():
    class Two(Backbone):
        def __init__(self):
            super().__init__()
            self.conv = torch.nn.Conv2d(3, 4, 1)
            self.block = torch.nn.ModuleDict({"conv": ConvNorm(4, 4, 1, norm="bn")})

        def output_shape(self):
            return {"x": ShapeSpec(channels=4, stride=1)}

        def forward(self, images):
            return {"x": self.block["conv"](self.conv(images))}

    adapted = LoRA(Two(), targets=["conv"], rank=2)
    trained = {name for name, one in adapted.named_parameters() if one.requires_grad}
    assert trained == {f"backbone.conv.lora_{side}.default.weight" for side in "AB"}


def test_a_model_with_adapters_exports(tmp_path):
    torch.manual_seed(0)
    model = build_model(lora_recipe(), num_classes=3, pretrained=False).eval()
    for name, one in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(one, std=0.1)
    report = export_onnx(model, tmp_path / "m.onnx", form="raw", size=(64, 96))
    assert (tmp_path / "m.onnx").is_file() and report


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"targets": ["qvk"]}, r"TimmBackbone has no .*layer named 'qvk'. Last parts .*: fc1, fc2, proj, qkv"),
        ({"targets": ["qkv", "nothing"]}, "named 'nothing'"),
        ({"targets": []}, "named in targets"),
        ({"use_dora": True}, "use_dora cannot be given"),
        ({"init_lora_weights": "pissa", "modules_to_save": ["fc1"]}, "init_lora_weights, modules_to_save cannot be"),
        ({"rank": 0}, "rank is 0, it must be at least 1"),
        ({"use_dorra": True}, r"peft refuses the options {'use_dorra': True}"),
    ],
)
def test_what_it_cannot_adapt_is_said(arguments, message):
    with pytest.raises(ValueError, match=message):
        LoRA(TimmBackbone(**VIT), **arguments)


def test_without_peft_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(SetupError, match=r"pip install 'vertebra\[peft\]'"):
        LoRA(TimmBackbone(**VIT))
