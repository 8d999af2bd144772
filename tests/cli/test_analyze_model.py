"""tools/analyze_model.py: FLOPs and parameters by fvcore, part by part."""

import runpy


def test_it_counts_the_known_size_of_resnet_18(repository, capsys):
    tool = runpy.run_path(str(repository / "tools" / "analyze_model.py"))
    recipe = ["--config-file", "retinanet:retinanet_shapes_quick", "--num-classes", "3"]
    tool["main"]([*recipe, "--size", "224", "224", "--depth", "1", "model.backbone.weights=null"])
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in capsys.readouterr().out.splitlines()]
    sizes = {row[0]: row[1:] for row in rows}
    assert sizes["backbone"] == ["11.177M", "1.819G"]  # torchvision: 1.814 G with the classifier (0.5 M), no norms
    assert {"model", "neck", "heads.boxes"} <= sizes.keys()
