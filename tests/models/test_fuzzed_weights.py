"""Checkpoints and weights files with random faults: used, or refused with a documented error; nothing is executed."""

import io
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save

from fuzzing import VALUES, bounded, changed, changed_bytes
from vertebra.config import load_recipe
from vertebra.engine import Trainer
from vertebra.engine.hooks.ema import EMA
from vertebra.engine.parts import Parts
from vertebra.errors import CheckpointError, VertebraError
from vertebra.models import read_weights
from vertebra.models.torch_files import read_torch_file
from vertebra.predictor import Predictor
from vertebra.predictor.pictures import draw_prediction

RECIPE = """\
model:
  backbone: {name: UNetEncoder, base_width: 2, num_stages: 2}
  heads: {pixels: {name: UNetHead}}
data:
  train: {format: shapes, images: 2, split: train, size: 64, labels: [semantic]}
  train_transforms: []
  eval_transforms: []
  workers: 0
train: {steps: 1, batch_size: 2, device: cpu, amp: "off"}
"""


class OneLayer(torch.nn.Module):
    """The smallest model that trains."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = torch.nn.BatchNorm1d(2)

    def forward(self, batch):
        return {"size": self.norm(batch).square().mean() + self.norm.weight.sum()}


def parts() -> Parts:
    from vertebra.engine.optimizers import SGD
    from vertebra.engine.parts import Plan

    torch.manual_seed(0)
    model = OneLayer()
    batches = lambda start: iter([torch.rand(4, 2)] * 9)  # noqa: E731
    return Parts(model=model, optimizer=SGD(lr=0.01).build(model), batches=batches, plan=Plan(steps=2))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("weights")


@pytest.fixture(scope="module")
def content(folder):
    """What a checkpoint of a training holds."""
    Trainer(output_dir=folder / "run", parts=parts(), hooks=[EMA()]).train()
    return torch.load(folder / "run/checkpoints/step_0000002.pth", weights_only=True)


pytestmark = pytest.mark.filterwarnings("ignore")  # torch warns of odd pickles
TENSORS = st.sampled_from(
    [torch.zeros(2), torch.zeros(3), torch.ones(2, dtype=torch.int64), torch.tensor(float("nan"))]
)


@bounded
@given(data=st.data())
def test_resuming(folder, content, data):
    rest = {key: value for key, value in content.items() if key != "rng"}  # long, and with tests of its own
    state = data.draw(changed(rest, VALUES | TENSORS))
    state = {"rng": content["rng"], **state} if isinstance(state, dict) else state
    target = folder / "damaged" / "checkpoints"
    target.mkdir(parents=True, exist_ok=True)
    torch.save(state, target / "step_0000002.pth")
    try:
        trainer = Trainer(output_dir=folder / "damaged", resume=True, parts=parts(), hooks=[EMA()])
    except VertebraError as err:
        assert str(err).strip()
        return
    trainer.plan = None
    for hook in trainer.hooks:
        if isinstance(hook, EMA):
            hook.before_train(trainer)


@bounded
@given(data=st.data())
def test_bytes_of_a_checkpoint(folder, content, data):
    stream = io.BytesIO()
    torch.save({"model": content["model"]}, stream)
    path = folder / "bytes.pth"
    path.write_bytes(data.draw(changed_bytes(stream.getvalue(), 6)))
    try:
        found = read_weights(path)
    except CheckpointError as err:
        assert "bytes.pth" in str(err)
        return
    assert all(torch.equal(value, content["model"][name]) for name, value in found.items())


@bounded
@given(data=st.data())
def test_pickles_inside_a_checkpoint(folder, content, data):
    stream, changed_stream = io.BytesIO(), io.BytesIO()
    torch.save({"model": content["model"], "note": ["a", 1, 2.5, None, (True, {"b": "c"})]}, stream)
    with zipfile.ZipFile(stream) as before, zipfile.ZipFile(changed_stream, "w") as after:
        for record in before.infolist():
            inside = before.read(record)
            if record.filename.endswith("data.pkl"):
                inside = data.draw(changed_bytes(inside, 6))
            after.writestr(record.filename, inside)
    path = folder / "pickle.pth"
    path.write_bytes(changed_stream.getvalue())
    try:
        read_torch_file(path)
    except CheckpointError as err:
        assert "pickle.pth" in str(err)


@bounded
@given(data=st.data())
def test_safetensors(folder, content, data):
    path = folder / "weights.safetensors"
    path.write_bytes(data.draw(changed_bytes(save(dict(content["model"])), 6)))
    try:
        read_weights(path)
    except CheckpointError as err:
        assert "weights.safetensors" in str(err)


@pytest.fixture(scope="module")
def trained(folder):
    """A recipe and the content of its final.pth."""
    (folder / "recipe.yaml").write_text(RECIPE)
    recipe = load_recipe(folder / "recipe.yaml")
    Trainer(recipe, folder / "trained").train()
    return recipe, torch.load(folder / "trained/final.pth", weights_only=True)


@bounded
@given(data=st.data())
def test_predicting(folder, trained, data):
    recipe, content = trained
    path = folder / "final.pth"
    facts = {key: value for key, value in content.items() if key != "model"}
    facts = data.draw(changed(facts, VALUES | TENSORS))
    torch.save({**facts, "model": content["model"]} if isinstance(facts, dict) else facts, path)
    try:
        predictor = Predictor(recipe, str(path))
        (prediction,) = predictor.stream([np.zeros((16, 24, 3), np.uint8)])
        draw_prediction(prediction, predictor.metadata)
    except VertebraError as err:
        assert str(err).strip()
