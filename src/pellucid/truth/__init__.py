"""What is truly in pictures: boxes and masks read from files and written back, and answers judged beside them.

Boxes are `(x0, y0, x1, y1)`, edges in pixels of the upright picture. Nothing here knows a model.
"""

from pellucid.truth.annotations import Annotated, Annotation, Truth
from pellucid.truth.coco import coco_text, read_coco
from pellucid.truth.masks import read_masks, write_mask
from pellucid.truth.matching import BoxAnswer, Judged, judge_boxes, overlap
from pellucid.truth.names import class_numbers
from pellucid.truth.outlines import Outline, box_around, outline_of
from pellucid.truth.reading import listed, read_truth
from pellucid.truth.tables import read_boxes
from pellucid.truth.voc import read_voc, voc_text
from pellucid.truth.yolo import read_yolo, yolo_text

__all__ = [
    "Annotated",
    "Annotation",
    "BoxAnswer",
    "Judged",
    "Outline",
    "Truth",
    "box_around",
    "class_numbers",
    "coco_text",
    "judge_boxes",
    "listed",
    "outline_of",
    "overlap",
    "read_boxes",
    "read_coco",
    "read_masks",
    "read_truth",
    "read_voc",
    "read_yolo",
    "voc_text",
    "write_mask",
    "yolo_text",
]
