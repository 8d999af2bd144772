"""What whole models and parts say of themselves, hide or return against the contract is named; weights reach them."""

import pytest
import torch
from torch import nn

from vertebra import BaseModel, Head, PluginError, build_model, load_recipe
from vertebra.models.weights import load_weights


def test_weights_reach_a_model_whose_state_dict_holds_copies():
    class Copies(BaseModel):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(2, 2)

        def state_dict(self, *args, **kwargs):
            return {name: value.clone() for name, value in super().state_dict(*args, **kwargs).items()}

    model = Copies()
    weights = {name: torch.full_like(value, 3) for name, value in model.state_dict().items()}
    assert load_weights(model, weights).loaded == list(weights)
    assert all(parameter.eq(3).all() for parameter in model.parameters())


def test_loading_keeps_what_the_weights_do_not_have():
    norm = nn.BatchNorm2d(2)
    norm.num_batches_tracked.fill_(7)
    load_weights(norm, {name: value for name, value in norm.state_dict().items() if name != "num_batches_tracked"})
    assert norm.num_batches_tracked == 7


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("network", nn.Conv2d(3, 3, 1)),
        ("parts", nn.ModuleList()),
        ("parts", [1, 2]),
        ("tasks", nn.ModuleDict()),
        ("metadata", nn.Linear(1, 1)),
        ("device", "cpu"),
        ("losses", {"a": 1}),
    ],
)
def test_names_of_the_contract_cannot_be_hidden(name, value):
    class Hiding(BaseModel):
        def __init__(self):
            super().__init__()
            setattr(self, name, value)

    with pytest.raises(PluginError, match=rf"Hiding sets self\.{name}, which means something else in BaseModel"):
        Hiding()


def test_names_of_other_contracts_cannot_be_hidden_either():
    class Hiding(Head):
        def __init__(self):
            super().__init__()
            self.losses = nn.ModuleDict()

    with pytest.raises(PluginError, match=r"Hiding sets self\.losses, which means something else in Head"):
        Hiding()
    model = BaseModel()
    model.predict = lambda raw, batch: []  # another method is what it says
    assert model.predict(None, None) == []


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("labels = 'stuf'", r"whole\.py:\d+: model Wrong: labels is 'stuf', expected 'things' or 'stuff' or 'all'"),
        ("task_outputs = 'sem_seg'", r"task_outputs is 'sem_seg', expected a tuple of names: \('sem_seg',\)"),
        ("needs_fields = ['depth']", r"needs_fields is \['depth'\], expected \{name: geometry\}"),
        ("needs_fields = {'depth': 'picture'}", r"needs_fields has 'depth' with the geometry 'picture', expected one"),
        ("def __init__(self, weights: str = ''): ...", r"model Wrong: its argument 'weights' is a key of the section"),
    ],
)  # fmt: skip
def test_what_a_class_says_of_itself_is_checked(tmp_path, body, words):
    source = "from vertebra import MODELS, BaseModel\n@MODELS.register()\nclass Wrong(BaseModel):\n"
    (tmp_path / "whole.py").write_text(f"{source}    {body}\n    def network(self, images): ...\n")
    with pytest.raises(PluginError, match=words):
        load_recipe("retinanet:retinanet_shapes_quick", plugins=[str(tmp_path / "whole.py")])


@pytest.mark.parametrize("found", [{}, [], None, torch.zeros(1), [{}, {}], [torch.zeros(1)]])
def test_predictions_that_are_not_a_dict_per_image_are_named(found):
    class Wrong(BaseModel):
        def network(self, images):
            return images

        def predict(self, raw, batch):
            return found

    with pytest.raises(
        PluginError, match=r"model Wrong: predict must return one dict per image, .*; got .* for 1 images"
    ):
        Wrong().eval()([{"image": torch.zeros(3, 8, 8, dtype=torch.uint8)}])


def test_a_lazy_layer_is_named_before_anything_needs_its_size(tmp_path):
    (tmp_path / "lazy.py").write_text(
        "from torch import nn\n"
        "from vertebra import HEADS\n"
        "from vertebra.models import SemanticHead\n\n\n"
        "@HEADS.register()\n"
        "class LazyHead(SemanticHead):\n"
        "    def __init__(self, num_classes: int):\n"
        "        super().__init__(num_classes)\n"
        "        self.score = nn.LazyConv2d(num_classes, 1)\n"
    )
    (tmp_path / "recipe.yaml").write_text(
        "plugins: [./lazy.py]\n"
        "model:\n"
        "  backbone: {name: ResNet, depth: 18, norm: bn, out_features: [res2]}\n"
        "  heads: {labels: LazyHead}\n"
        "data: {train: {format: shapes}, val: {format: shapes}}\n"
        "train: {steps: 1}\n"
    )
    words = r"recipe.yaml:2: model Model: heads.labels.score.weight gets its size only from the first image .*; 2 param"
    with pytest.raises(PluginError, match=words):
        build_model(load_recipe(tmp_path / "recipe.yaml"), num_classes=3)
