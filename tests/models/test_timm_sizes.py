"""Vision transformers of timm: any size of image, and the same features alone and in a padded batch."""

import pytest
import torch

from vertebra import build_model, load_recipe
from vertebra.export import OnnxModel, export_onnx
from vertebra.models import Batch
from vertebra.models.backbones.timm import TimmBackbone

SIZES = [(64, 96), (128, 160), (50, 90), (64, 96)]
TRANSFORMERS = {
    "vit_tiny_patch16_224": {"depth": 2},
    "vit_small_patch14_dinov2": {"depth": 2, "embed_dim": 96, "num_heads": 3, "patch_size": 16, "init_values": 1.0},
    "vit_small_patch16_dinov3": {"depth": 2, "embed_dim": 96, "num_heads": 3, "init_values": 1.0},
    "swin_tiny_patch4_window7_224": {"depths": (1, 1, 1, 1), "embed_dim": 24, "num_heads": (1, 2, 4, 8)},
}


def padded(sizes, seed=0):
    """Images of these sizes as a batch, divisible by 32."""
    random = torch.Generator().manual_seed(seed)
    images = torch.zeros(len(sizes), 3, 128, 160)
    for image, (height, width) in zip(images, sizes, strict=True):
        image[:, :height, :width] = torch.randn(3, height, width, generator=random)
    return Batch(images, list(sizes), list(sizes), [{} for _ in sizes])


@pytest.mark.parametrize("model", TRANSFORMERS)
def test_an_image_has_the_same_features_alone_and_in_a_padded_batch(model):
    torch.manual_seed(0)
    backbone = TimmBackbone(model, out_indices=[1], **TRANSFORMERS[model]).eval()
    batch = padded(SIZES)
    with torch.no_grad():
        together, whole = backbone(batch.images, batch)["stage1"], backbone(batch.images)["stage1"]
        assert together.shape == whole.shape
        for place, (height, width) in enumerate(SIZES):
            alone = backbone(batch.images[place, None, :, :height, :width])["stage1"][0]
            rows, columns = alone.shape[-2:]
            inside = together[place, :, :rows, :columns]
            torch.testing.assert_close(inside, alone, rtol=1e-5, atol=1e-5)
            assert not together[place, :, rows:].any() and not together[place, :, :, columns:].any()
            if (height, width) != (128, 160):  # what padding does where it is seen: the test can fail
                assert (whole[place, :, :rows, :columns] - alone).abs().max() > 1e-3


def test_gradients_reach_every_image_of_a_batch_and_no_padding():
    backbone = TimmBackbone("vit_tiny_patch16_224", out_indices=[1], depth=2)
    batch = padded([(64, 96), (128, 160)])
    batch.images.requires_grad_()
    backbone(batch.images, batch)["stage1"].square().sum().backward()
    assert batch.images.grad[0, :, :64, :96].any() and batch.images.grad[1].any()
    assert not batch.images.grad[0, :, 64:].any()


def test_images_of_one_size_run_together_and_convolutional_models_see_the_whole_batch():
    backbone = TimmBackbone("vit_tiny_patch16_224", out_indices=[1], depth=2)
    runs = []
    backbone.model.register_forward_pre_hook(lambda _, given: runs.append(tuple(given[0].shape)))
    batch = padded(SIZES)
    backbone(batch.images, batch)
    assert runs == [(3, 3, 64, 96), (1, 3, 128, 160)]  # 50 x 90 is rounded up to 64 x 96
    assert not TimmBackbone("convnext_atto").by_image_size
    whole = TimmBackbone("vit_tiny_patch16_224", out_indices=[1], depth=2, by_image_size=False)
    whole.model.register_forward_pre_hook(lambda _, given: runs.append(tuple(given[0].shape)))
    whole(batch.images, batch)
    assert runs[2:] == [(4, 3, 128, 160)]


def test_maps_with_as_many_rows_as_channels_keep_their_orientation():
    torch.manual_seed(0)
    options = TRANSFORMERS["swin_tiny_patch4_window7_224"]
    backbone = TimmBackbone("swin_tiny_patch4_window7_224", out_indices=[0], **options).eval()
    image = torch.randn(1, 3, 96, 64)  # 24 rows and 24 channels
    with torch.no_grad():
        found = backbone(image)["stage0"]
        expected = backbone.model(image)[0]  # rows, columns, channels
    assert found.shape == (1, 24, 24, 16)
    torch.testing.assert_close(found, expected.permute(0, 3, 1, 2))


def test_a_graph_gives_what_the_model_gives_where_the_neck_pads_further_than_the_backbone(tmp_path):
    torch.manual_seed(0)
    backbone = {"name": "timm", "model": "vit_tiny_patch16_224", "out_indices": [1], "depth": 2, "embed_dim": 48}
    parts = {"model.backbone": backbone, "model.neck": {"name": "SimpleFeaturePyramid", "out_channels": 16}}
    model = build_model(load_recipe("unet:unet_shapes_quick", [parts]), num_classes=4, pretrained=False).eval()
    export_onnx(model, tmp_path / "m.onnx", form="raw", size=(64, 80))  # 80 is padded to 96
    images = torch.randint(0, 256, (2, 3, 64, 80), dtype=torch.uint8)
    found = OnnxModel(tmp_path / "m.onnx")(images[:1].float() / 255)["sem_seg_scores"][0]
    with torch.no_grad():
        alone = model([{"image": images[0]}])[0]["sem_seg"]
        larger = torch.randint(0, 256, (3, 128, 128), dtype=torch.uint8)
        beside = model([{"image": images[0]}, {"image": larger}])[0]["sem_seg"]
    torch.testing.assert_close(found, alone, rtol=1e-3, atol=1e-3)
    assert beside.shape == alone.shape


def test_batch_normalization_sees_the_whole_batch():
    assert not TimmBackbone("fasternet_t0").by_image_size  # convolutional, with a patch_embed


def test_what_timm_refuses_is_said():
    with pytest.raises(
        ValueError, match=r"timm cannot make 'vit_tiny_patch16_224'.*unexpected keyword argument 'dept'"
    ):
        TimmBackbone("vit_tiny_patch16_224", dept=2)
    with pytest.raises(ValueError, match=r"timm cannot make 'convnext_atto'.*'dynamic_img_size'"):
        TimmBackbone("convnext_atto", dynamic_img_size=True)
