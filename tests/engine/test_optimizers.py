"""Optimizers: parameter groups by Detectron2's rules, and one step worked by hand."""

import copy
import json

import pytest
import torch
from torch import nn

from vertebra.engine.optimizers import SGD, AdamW
from vertebra.engine.param_groups import parameter_groups
from vertebra.engine.state import _load_optimizer, _optimizer_state


class Two(nn.Module):
    """A backbone with a norm and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
        self.head = nn.Linear(4, 2)


def settings_of(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, tuple[float, float]]:
    names = {parameter: name for name, parameter in model.named_parameters()}
    return {names[p]: (g["lr"], g["weight_decay"]) for g in optimizer.param_groups for p in g["params"]}


def test_norms_have_their_own_weight_decay_and_groups_are_merged():
    model = Two()
    optimizer = SGD(lr=0.1, weight_decay=0.01).build(model)
    assert len(optimizer.param_groups) == 2
    assert settings_of(optimizer, model) == {
        "backbone.0.weight": (0.1, 0.01),
        "backbone.0.bias": (0.1, 0.01),
        "backbone.1.weight": (0.1, 0.0),
        "backbone.1.bias": (0.1, 0.0),
        "head.weight": (0.1, 0.01),
        "head.bias": (0.1, 0.01),
    }


def test_bias_and_backbone_options():
    model = Two()
    optimizer = AdamW(
        lr=1.0, weight_decay=0.1, weight_decay_bias=0.0, bias_lr_factor=2.0, backbone_lr_factor=0.1
    ).build(model)
    assert settings_of(optimizer, model) == {
        "backbone.0.weight": (0.1, 0.1),
        "backbone.0.bias": (0.2, 0.0),
        "backbone.1.weight": (0.1, 0.0),
        "backbone.1.bias": (0.2, 0.0),
        "head.weight": (1.0, 0.1),
        "head.bias": (2.0, 0.0),
    }


def test_frozen_and_shared_parameters():
    model = Two()
    model.again = model.head  # the same module under a second name
    model.backbone.requires_grad_(False)
    groups = parameter_groups(model, lr=0.1, weight_decay=0.0)
    assert [len(group["params"]) for group in groups] == [2]


def test_nothing_to_train_is_an_error():
    with pytest.raises(ValueError, match="no trainable parameter"):
        SGD().build(Two().requires_grad_(False))


def test_two_steps_with_momentum_by_hand():
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 1.0)
    optimizer = SGD(lr=0.1, momentum=0.5, weight_decay=1.0).build(model)
    for _ in range(2):
        model.weight.grad = torch.full((1, 1), 2.0)
        optimizer.step()
    # v1 = 2 + 1 = 3, w1 = 0.7; v2 = 0.5 * 3 + 2.7 = 4.2, w2 = 0.28
    assert model.weight.item() == pytest.approx(0.28)


@pytest.mark.parametrize("name", ["retinanet_R_50_FPN", "panoptic_fpn_R_50", "deeplab_v3_plus_R_103"])
def test_groups_equal_detectron2s(shared, name):
    """A skeleton with the golden model's parameter names: what is a norm there is a norm here."""
    golden = json.loads(shared(f"golden/models/{name}.json").read_text())
    trained = {entry["name"]: entry for entry in golden["state_dict"] if entry["kind"] == "parameter"}
    model = nn.Module()
    for full_name in trained:
        *path, leaf = full_name.split(".")
        module = model
        for part in path:
            if not hasattr(module, part):
                module.add_module(part, nn.BatchNorm2d(1, affine=False) if part == "norm" else nn.Module())
            module = getattr(module, part)
        module.register_parameter(leaf, nn.Parameter(torch.zeros(1)))
    base = golden["differs_from_default_cfg"]["SOLVER.BASE_LR"]
    optimizer = SGD(lr=base).build(model)
    assert settings_of(optimizer, model) == {n: (entry["lr"], entry["weight_decay"]) for n, entry in trained.items()}
    assert len(optimizer.param_groups) == golden["optimizer"]["groups"]
    assert optimizer.defaults["momentum"] == golden["optimizer"]["momentum"]


@pytest.mark.parametrize("optimizer", [SGD(lr=0.1), AdamW(lr=0.01)], ids=["SGD", "AdamW"])
@pytest.mark.parametrize("saved_as", [torch.channels_last, torch.contiguous_format])
def test_a_checkpoint_of_another_memory_layout_goes_on_as_if_it_were_of_this_one(optimizer, saved_as):
    """A checkpoint of a machine that trains in NHWC, resumed where NCHW is faster."""
    goes_on_as = torch.contiguous_format if saved_as is torch.channels_last else torch.channels_last
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 4, 3)).to(
        memory_format=saved_as
    )
    batches = torch.randn(6, 2, 3, 12, 12).unbind()

    def train(model, optimizer, batches):
        for batch in batches:
            optimizer.zero_grad()
            model(batch).square().mean().backward()
            optimizer.step()

    first = optimizer.build(model)
    train(model, first, batches[:3])
    saved = copy.deepcopy(_optimizer_state(first, model))
    other = copy.deepcopy(model).to(memory_format=goes_on_as)
    train(model, first, batches[3:])
    second = optimizer.build(other)
    _load_optimizer(second, other, saved, "checkpoint")
    train(other, second, batches[3:])
    for one, two in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-6)


def test_parameters_that_are_used_later_get_momentum_as_without_fusing():
    one = Two()
    two = copy.deepcopy(one)
    fused = SGD(lr=0.1, weight_decay=0.01).build(one)
    plain = SGD(lr=0.1, weight_decay=0.01).build(two)
    for group in plain.param_groups:
        group["fused"] = False
    assert fused.param_groups[0]["fused"]
    for step in range(4):
        for model, optimizer in ((one, fused), (two, plain)):
            optimizer.zero_grad()
            x = model.backbone(torch.full((2, 3, 2, 2), float(step + 1))) if step > 1 else torch.ones(2, 4, 1, 1)
            model.head(x.mean((2, 3))).square().sum().backward()
            optimizer.step()
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        torch.testing.assert_close(a, b)
