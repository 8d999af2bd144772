"""pycocotools' interface on this package's evaluation: change the import of a script, and nothing else.

    from vertebra_eval.pycocotools import COCO, COCOeval, Params, mask

The modules `coco`, `cocoeval` and `mask` have pycocotools' names too. Arrays, summary numbers and printed lines equal
those of the installed pycocotools.
"""

from vertebra_eval.pycocotools import mask
from vertebra_eval.pycocotools.coco import COCO
from vertebra_eval.pycocotools.cocoeval import COCOeval, Params

__all__ = ["COCO", "COCOeval", "Params", "mask"]
