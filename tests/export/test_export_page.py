"""The Python blocks of docs/export.md run, on a small YOLOv5 of which the page's files are made."""

import re
from pathlib import Path

import pytest
import torch

PAGE = Path(__file__).resolve().parents[2] / "docs" / "export.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.e2e
def test_the_page_works_from_top_to_bottom(command_line, tmp_path, monkeypatch):
    pytest.importorskip("cv2")
    import numpy as np
    from PIL import Image

    from vertebra import build_model, load_recipe

    monkeypatch.chdir(tmp_path)
    recipe = load_recipe("yolo:yolov5n", ["data.root=/nowhere"])
    torch.manual_seed(0)
    model = build_model(recipe, num_classes=3)
    for layer in model.heads.modules():
        if isinstance(layer, torch.nn.Conv2d):
            torch.nn.init.normal_(layer.weight, std=0.3)  # an untrained head is sure of nothing
    Path("runs/cells").mkdir(parents=True)
    Path("runs/cells/recipe.yaml").write_text(recipe.to_yaml())
    torch.save({"model": model.state_dict(), "classes": ["RBC", "WBC", "Platelets"]}, "runs/cells/final.pth")
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)).save("cells.jpg")

    for language, text in BLOCK.findall(PAGE.read_text(encoding="utf-8")):
        if language == "python":
            exec(compile(text, str(PAGE), "exec"), {})
            continue
        command, *shown = text.removeprefix("$ ").rstrip().splitlines()
        said = command_line(*command.split()[1:]).stdout
        for line in shown:
            if not line.startswith(("detector", "yolo", "  ONNX")):  # sizes and differences are the example's own
                assert line.strip() in said
