"""Caffe2's names in Detectron2's words."""

import json

import pytest

from vertebra.models.caffe2_names import caffe2_to_detectron2, is_caffe2_name


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("conv1_w", "stem.conv1.weight"),
        ("res_conv1_bn_s", "stem.conv1.norm.weight"),
        ("res2_0_branch1_bn_b", "res2.0.shortcut.norm.bias"),
        ("res4_22_branch2c_w", "res4.22.conv3.weight"),
        ("fpn_inner_res4_5_sum_lateral_w", "fpn_lateral4.weight"),
        ("fpn_inner_res5_2_sum_b", "fpn_lateral5.bias"),
        ("fpn_res3_3_sum_w", "fpn_output3.weight"),
        ("lr", None),
        ("conv1_w_momentum", None),
        ("stem.conv1.weight", None),
    ],
)
def test_a_layer_gets_its_detectron2_name(name, wanted):
    assert caffe2_to_detectron2(name) == wanted
    assert is_caffe2_name(name) == (wanted is not None)


def test_all_of_detectrons_names_agree_with_the_reference(shared):
    wanted = json.loads(shared("golden/components.json").read_text())["caffe2_names"]
    assert len(wanted) > 200
    assert {name: caffe2_to_detectron2(name) for name in wanted} == wanted
