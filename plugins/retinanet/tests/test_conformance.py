"""RetinaNetHead keeps what every head promises."""

from vertebra.testing import HeadConformance


class TestRetinaNetHead(HeadConformance):
    component = "RetinaNetHead"
    recipe = "retinanet:retinanet_shapes_quick"
