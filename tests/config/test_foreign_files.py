"""Files of other tools in the place of a recipe, and keys in the wrong section: the message says what they are."""

import pytest

from vertebra.config import load_recipe
from vertebra.errors import RecipeError

ULTRALYTICS = "dataset description of Ultralytics"
FOREIGN = {
    "data.yaml": ("path: ../coco8\ntrain: images/train\nval: images/val\nnames:\n  0: person\n", ULTRALYTICS),
    "roboflow.yaml": ("train: ../train/images\nnc: 2\nnames: ['a', 'b']\n", ULTRALYTICS),
    "yolov8n.yaml": (
        "nc: 80\nbackbone:\n  - [-1, 1, Conv, [64, 3, 2]]\nhead: []\n",
        "model description of Ultralytics",
    ),
    "args.yaml": ("task: detect\nmode: train\nmodel: yolov8n.pt\nepochs: 3\nimgsz: 640\n", "arguments of Ultralytics"),
    "d2.yaml": ('_BASE_: "../Base.yaml"\nMODEL:\n  MASK_ON: True\n', "this is a config of Detectron2"),
    "solver.yaml": ("SOLVER: {MAX_ITER: 270000}\n", "this is a config of Detectron2"),
    "lazy.yaml": ("model: {_target_: detectron2.modeling.GeneralizedRCNN}\n", "this is a LazyConfig of Detectron2"),
    "instances.json": ('{"images": [], "annotations": [], "categories": []}', "this is a COCO dataset"),
    "mm.py": ("model = dict(type='FasterRCNN')\n", "a recipe is a YAML file"),
    "final.pth": ("PK", "these are weights"),
    "1.xml": ("<annotation/>", "this is not a recipe but labels"),
    "1.txt": ("0 0.5 0.5 0.1 0.1\n", "this is not a recipe but labels"),
    "net.cfg": ("[net]\n", "Cfg files of Darknet are imported"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_file_of_another_tool_is_called_by_its_name(tmp_path, name):
    content, words = FOREIGN[name]
    (tmp_path / name).write_text(content)
    with pytest.raises(RecipeError, match=words) as caught:
        load_recipe(tmp_path / name)
    assert "mistakes" not in str(caught.value)


def test_it_may_also_be_a_base(tmp_path):
    (tmp_path / "base.yaml").write_text(FOREIGN["d2.yaml"][0])
    (tmp_path / "mine.yaml").write_text("_base_: base.yaml\n")
    with pytest.raises(RecipeError, match=r"base\.yaml:1: this is a config of Detectron2"):
        load_recipe(tmp_path / "mine.yaml")


@pytest.mark.parametrize(
    ("override", "nearest"),
    [
        ("epochs=3", "train.epochs"),
        ("device=cpu", "train.device"),
        ("workers=2", "data.workers"),
        ("batch_size=2", "train.batch_size, evaluate.batch_size"),
        ("train.workers=2", "data.workers"),
        ("data.epochs=2", "train.epochs"),
        ("lr=0.1", "train.optimizer.lr"),
        ("depth=50", "model.backbone.depth"),
        ("modle=1", "model"),
    ],
)
def test_a_key_of_another_section_is_named_with_its_place(tmp_path, override, nearest):
    text = "model:\n  backbone: {name: ResNet, depth: 18}\n  heads: {a: {name: RetinaNetHead}}\n"
    (tmp_path / "mine.yaml").write_text(f"{text}train: {{optimizer: {{name: SGD, lr: 0.01}}}}\n")
    with pytest.raises(RecipeError, match=rf"Nearest: {nearest}$"):
        load_recipe(tmp_path / "mine.yaml", [override])
