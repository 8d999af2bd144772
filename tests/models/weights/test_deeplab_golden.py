"""DeepLabV3 and V3+ agree with Detectron2's DeepLab project: from the weights file to scores, losses and gradients.

The numbers and their origin: tests/reference/golden_deeplab.md.
"""

import gc
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from vertebra.config import load_recipe
from vertebra.models import build_model, load_weights, read_weights
from vertebra.models.import_detectron2 import import_detectron2, translate_names

pytestmark = pytest.mark.golden

MODELS = {"v3": "deeplab:deeplab_v3_r103_cityscapes", "v3_plus": "deeplab:deeplab_v3plus_r103_cityscapes"}
OVERRIDES = [
    "model.heads.sem_seg.num_classes=19",
    "model.heads.sem_seg.pool_size=[10, 14]",  # of the golden models: a crop of 160 x 224 at stride 16
    "model.backbone.weights=null",
]


@pytest.fixture(scope="module", params=MODELS)
def deeplab(request, repository, golden_rule, tmp_path_factory):
    """One golden model: its `numbers`, `arrays`, `weights` and `image`, our `recipe`, and our `imported` weights."""
    data, name = repository / "tests/reference", request.param
    numbers = json.loads((data / "golden_deeplab.json").read_text())[name]
    arrays = {key: value for key, value in np.load(data / "golden_deeplab.npz").items() if key.startswith(f"{name}/")}
    scales = [scale for scale in golden_rule.scales if "stem" not in scale[0]]
    weights = {
        entry: torch.from_numpy(
            np.float32(0) if entry.endswith("num_batches_tracked") else golden_rule.value(entry, shape, scales)
        )
        if shape
        else torch.tensor(0)
        for entry, shape, *_ in numbers["state_dict"]
    }
    image = torch.from_numpy(np.array(Image.open(data / "golden_retinanet_A.png"))).permute(2, 0, 1).flip(0)
    recipe = load_recipe(MODELS[name], OVERRIDES)
    folder = tmp_path_factory.mktemp("import")
    torch.save({"model": weights, "__author__": "Detectron2"}, folder / "model_final.pth")
    report = import_detectron2(folder / "model_final.pth", recipe, folder / "ours.pth")
    yield SimpleNamespace(
        numbers=numbers,
        arrays={key.removeprefix(f"{name}/"): value for key, value in arrays.items()},
        weights=weights,
        image=image,
        recipe=recipe,
        report=report,
        imported=read_weights(str(folder / "ours.pth")),
        model=build_model(recipe, pretrained=False),
    )
    for file in folder.iterdir():
        file.unlink()
    gc.collect()


@pytest.fixture
def model(deeplab):
    """Ours, with the imported weights."""
    load_weights(deeplab.model, deeplab.imported)
    return deeplab.model


def test_the_rule_gives_the_golden_weights(deeplab):
    for name, shape, total, *_ in deeplab.numbers["state_dict"]:
        assert list(deeplab.weights[name].shape) == shape
        assert deeplab.weights[name].double().sum().item() == pytest.approx(total, rel=1e-9, abs=1e-9), name


def test_every_entry_has_a_place(deeplab):
    counters = [name for name in deeplab.weights if name.endswith("num_batches_tracked")]
    assert deeplab.report.unused == ()
    assert all(name.endswith("num_batches_tracked") for name in deeplab.report.kept)
    assert deeplab.report.num_loaded + len(deeplab.report.kept) == len(deeplab.weights)
    assert deeplab.report.num_loaded >= len(deeplab.weights) - len(counters)
    parameters = sum(p.numel() for p in deeplab.model.parameters())
    assert parameters == deeplab.numbers["parameters"]


def test_stages_agree(deeplab, model):
    """To 1e-4 of each stage's greatest absolute value."""
    outputs = stages(model, deeplab.image)
    assert {f"A/{name}" for name in outputs} == deeplab.numbers["stages"].keys()
    for name, value in outputs.items():
        agree(value, deeplab.arrays[f"A/{name}"], deeplab.numbers["stages"][f"A/{name}"], name)


@pytest.mark.parametrize("case", ["A", "A_native"])
def test_segmentation_agrees(deeplab, model, case):
    """Scores to 1e-4 of their range, the best class of every pixel, and how many pixels have each class."""
    wanted = deeplab.numbers["results"][case]
    num_classes, height, width = wanted["sem_seg"]["shape"]
    sample = {"image": deeplab.image} | ({} if case == "A_native" else {"height": height, "width": width})
    with torch.no_grad():
        found = model.eval()([sample])[0]["sem_seg"]
    assert found.shape == (num_classes, height, width)
    agree(found, deeplab.arrays[f"{case}/sem_seg/sample"], [wanted["sem_seg"]["min"], wanted["sem_seg"]["max"]], case)
    labels = found.argmax(dim=0)
    assert (labels[::4, ::4].numpy() != deeplab.arrays[f"{case}/sem_seg/argmax"]).mean() < 1e-3
    counts = labels.flatten().bincount(minlength=num_classes)
    moved = (counts - torch.tensor(wanted["sem_seg_pixels_per_class"])).abs().sum().item()
    assert moved <= 1e-4 * height * width


@pytest.mark.timeout(600)
def test_losses_of_two_training_steps_agree(deeplab, model):
    """With the hardest fifth of the pixels and dropout: to 1e-4, an SGD step between; the statistics after both."""
    model.train()
    optimizer = make_optimizer(deeplab, model, lr=1e-5)
    for step, wanted in enumerate(deeplab.numbers["losses"]):
        torch.manual_seed(1234 + step)
        losses = model(training_batch(deeplab.image))
        assert {name: loss.item() for name, loss in losses.items()} == {
            f"sem_seg/{name}": pytest.approx(value, rel=1e-4) for name, value in wanted["losses"].items()
        }
        if step == 0:
            sum(losses.values()).backward()
            norms = gradient_norms(deeplab, model)
            assert norms.keys() == wanted["grad_norms"].keys()
            # A gate of a ReLU next to 0, or a pixel next to the hardest fifth's edge, may go either way in fp32.
            assert norms == pytest.approx(wanted["grad_norms"], rel=1e-2)
            optimizer.step()
            optimizer.zero_grad()
    state, (renamed, _) = model.state_dict(), translate_names(deeplab.weights, model)
    own = {theirs: mine for mine, theirs in renamed.items()}
    for name, total in wanted["running_stats_after"].items():
        assert state[own[name]].double().sum().item() == pytest.approx(total, rel=1e-4), name


def test_rate_and_weight_decay_of_every_parameter_agree(deeplab, model):
    groups = make_optimizer(deeplab, model).param_groups
    found = {id(p): (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}
    parameters, (renamed, _) = dict(model.named_parameters()), translate_names(deeplab.weights, model)
    own = {theirs: mine for mine, theirs in renamed.items()}
    for name, _, _, rate, decay in deeplab.numbers["state_dict"]:
        if rate is not None:
            assert found.pop(id(parameters[own[name]])) == pytest.approx((rate, decay)), name
    assert not found


def stages(model, image):
    """The outputs of Detectron2's submodules by its names."""
    kept = {}
    head = model.heads["sem_seg"]
    parts = {f"backbone.{name}": getattr(model.backbone, name) for name in model.backbone.stage_names}
    parts["sem_seg_head.predictor"] = head.predictor
    if hasattr(head, "merge"):
        parts["sem_seg_head.decoder.res5.project_conv"] = head.aspp
        parts["sem_seg_head.decoder.res2.project_conv"] = head.narrow["res2"]
        parts["sem_seg_head.decoder.res2.fuse_conv"] = head.merge["res2"]
    else:
        parts["sem_seg_head.aspp"] = head.aspp
    hooks = [
        part.register_forward_hook(lambda module, args, out, name=name: kept.update({name: out}))
        for name, part in parts.items()
    ]
    hooks.append(model.backbone.res2.register_forward_pre_hook(lambda _, args: kept.update({"backbone.stem": args[0]})))
    with torch.no_grad():
        model.eval().compute(model.make_batch([{"image": image}]).images)
    for hook in hooks:
        hook.remove()
    return kept


def agree(value, sample, extremes, name):
    """`value` has the golden extremes and the golden sample, to 1e-4 of its greatest absolute value."""
    flat = value.flatten()
    scale = max(map(abs, extremes))
    got = flat[:: len(flat) // len(sample)][: len(sample)].numpy()
    assert np.abs(got - sample).max() < 1e-4 * scale, name
    assert [flat.min().item(), flat.max().item()] == pytest.approx(extremes, abs=1e-4 * scale), name


def training_batch(image):
    """The image and its mirror, with a patchwork of labels."""
    height, width = image.shape[-2:]
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    labels = ((y // 40) * 7 + (x // 56) * 3) % 19
    labels[:8] = 255
    return [{"image": image, "sem_seg": labels}, {"image": image.flip(2), "sem_seg": labels.flip(1)}]


def make_optimizer(deeplab, model, lr=None):
    """The recipe's, at its own rate or at another one."""
    recipe = deeplab.recipe
    if lr is not None:
        recipe = load_recipe(MODELS["v3"], [*OVERRIDES, f"train.optimizer.lr={lr}"])
    return recipe.train.optimizer.build().build(model)


def gradient_norms(deeplab, model):
    """{Detectron2's name: norm of the gradient} of what has one."""
    renamed, _ = translate_names(deeplab.weights, model)
    parameters = dict(model.named_parameters())
    return {
        name: parameters[own].grad.double().norm().item()
        for own, name in renamed.items()
        if own in parameters and parameters[own].grad is not None
    }
