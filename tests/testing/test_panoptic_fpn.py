"""The panoptic head with Mask R-CNN inside keeps what every head promises: two plugins, one model."""

import pytest

from vertebra.testing import HeadConformance

pytest.importorskip("vertebra_rcnn", reason="the recipe's things head comes from vertebra-rcnn")
pytest.importorskip("vertebra_panoptic", reason="the recipe's head comes from vertebra-panoptic")


class TestPanopticFPN(HeadConformance):
    component = "PanopticHead"
    arguments = {
        "things": {"name": "RCNNHead", "masks": "ROIMasks"},
        "stuff": {"name": "SemSegFPNHead", "num_classes": 5},
    }

    @pytest.fixture(autouse=True)
    def _from_the_source_tree(self, repository):
        type(self).recipe = str(repository / "configs/panoptic/shapes_panoptic_fpn_quick.yaml")
