"""Several processes together give the numbers of one."""

import json
from types import SimpleNamespace

import pytest
import torch.distributed as dist
import torch.multiprocessing as mp

from vertebra.errors import DataError, VertebraError
from vertebra.evaluation import COCOEvaluator
from vertebra.runtime.distributed import on_main_process


def _dataset(count):
    annotation = {"bbox": [10, 10, 60, 60], "bbox_mode": 0, "category_id": 0}
    dicts = [{"image_id": i, "height": 100, "width": 100, "annotations": [annotation]} for i in range(count)]
    return SimpleNamespace(dicts=dicts, metadata=SimpleNamespace(thing_classes=["cat"]))


def _detect(evaluator, rows):
    import torch

    from vertebra.structures import Boxes, Instances

    for row in rows:
        shift = row % 4
        boxes = Boxes([[10.0 + 3 * shift, 10, 60, 60]])
        found = Instances((100, 100), pred_boxes=boxes, scores=torch.tensor([0.9 - 0.1 * row]), pred_classes=[0])
        evaluator.process([evaluator.dataset.dicts[row]], [{"instances": found}])


def _fail():
    raise DataError("the ground truth is gone")


def _work(rank, world_size, folder):
    """Rank 2 has no image; ranks 0 and 1 share image 3, as padding samplers do."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world_size)
    evaluator = COCOEvaluator(_dataset(5), f"{folder}/results")
    _detect(evaluator, [[0, 1, 3], [2, 3, 4], []][rank])
    metrics = evaluator.evaluate()
    try:
        on_main_process(_fail)
        failure = None
    except VertebraError as err:
        failure = str(err)
    with open(f"{folder}/{rank}.json", "w", encoding="utf-8") as file:
        json.dump([metrics, evaluator.reasons, failure], file)
    dist.destroy_process_group()


@pytest.mark.slow
def test_shards_with_duplicates_and_an_empty_one_equal_one_process(tmp_path):
    alone = COCOEvaluator(_dataset(5))
    _detect(alone, range(5))
    expected = alone.evaluate()
    assert 0 < expected["bbox/AP"] < 1
    mp.spawn(_work, args=(3, str(tmp_path)), nprocs=3)
    for rank in range(3):
        metrics, reasons, failure = json.loads((tmp_path / f"{rank}.json").read_text())
        assert metrics == expected and reasons == alone.reasons
        assert "the ground truth is gone" in failure  # in every process, nobody waits for ever
    assert len(json.loads((tmp_path / "results" / "coco_results.json").read_text())) == 5
