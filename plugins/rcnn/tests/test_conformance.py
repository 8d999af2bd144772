"""RCNNHead keeps what every head promises, in each of its forms."""

from vertebra.testing import HeadConformance

SMALL = (  # no neck: one level of stride 16 or 32, a narrow ResNet-18
    "model.neck=null",
    "model.heads.objects.proposals={name: RPN, pre_nms_topk: [100, 50], post_nms_topk: [50, 20]}",
    "model.heads.objects.proposals.anchor_generator={sizes: [[16, 32, 64]], strides: [16]}",
)


class TestFasterRCNN(HeadConformance):
    component = "RCNNHead"
    recipe = "rcnn:faster_rcnn_shapes_quick"


class TestMaskRCNN(HeadConformance):
    component = "RCNNHead"
    recipe = "rcnn:mask_rcnn_shapes_quick"


class TestKeypointRCNN(HeadConformance):
    component = "RCNNHead"
    recipe = "rcnn:keypoint_rcnn_shapes_quick"


class TestCascadeRCNN(HeadConformance):
    component = "RCNNHead"
    recipe = "rcnn:faster_rcnn_shapes_quick"
    overrides = (
        "model.heads.objects.boxes={name: CascadeBoxes, head: {name: FastRCNNConvFCHead, num_fc: 2, fc_dim: 64}}",
    )


class TestRFCN(HeadConformance):
    component = "RCNNHead"
    recipe = "rcnn:faster_rcnn_shapes_quick"
    overrides = (
        *SMALL,
        "model.backbone.out_features=[res3]",  # cells of 8 pixels: the kit's images hold objects of 25
        "model.heads.objects.proposals.anchor_generator={sizes: [[16, 32, 64]], strides: [8]}",
        "model.heads.objects.boxes={name: RFCNBoxes, channels: 64, bins: 3}",
    )
    overfit_lr, overfit_steps = 1e-4, 800  # nothing normalizes the maps: at 3e-4 the loss climbs again, or not


class TestC4(HeadConformance):
    component = "RCNNHead"
    recipe = "rcnn:mask_rcnn_shapes_quick"
    overrides = (
        *SMALL,
        "model.backbone.out_features=[res4]",
        "model.heads.objects.boxes={name: ROIBoxes, head: {name: Res5, depth: 18, norm: bn}}",
        "model.heads.objects.masks={name: ROIMasks, num_conv: 0, conv_dim: 32}",
        # a whole res5 for each region: few and small ones, or a bf16 step takes two minutes on a CPU without bf16
        "model.heads.objects.sampler={name: RandomSampler, num_samples: 4, positive_fraction: 0.3}",
        "model.heads.objects.boxes.pooler={name: ROIPooler, resolution: 7}",
        "model.heads.objects.masks.pooler={name: SharedBoxFeatures, channels: 512, resolution: 4}",
        "model.heads.objects.proposals.post_nms_topk=[50, 4]",
    )
    overfit_lr = 4e-4
    overfit_overrides = (
        "model.heads.objects.sampler.num_samples=10",
        "model.heads.objects.proposals.post_nms_topk=[50, 10]",
    )
