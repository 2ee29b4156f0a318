"""`explain` beside the truth: what a detector finds, misses and imagines, each with its own map."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from pellucid.errors import AbsentError, DataError, ModelError, PellucidError
from pellucid.evaluation.boxes import box_figures
from pellucid.heatmaps import Method
from pellucid.models.detections import Detections
from pellucid.models.feed import Prepared
from pellucid.models.model import VisionModel
from pellucid.models.targets import BoxTarget
from pellucid.models.tasks import BoxTask, Task
from pellucid.results.judged import JudgedBox, JudgedPicture
from pellucid.truth import Annotated, Annotation, BoxAnswer, Judged, Truth, class_numbers, judge_boxes
from pellucid.truth.matching import KINDS, LEAST
from pellucid.verbs.explain import explain_batch
from pellucid.verbs.inputs import Input, prepared

MOST = 20
"""How many boxes of a kind are explained in one picture, the surest first."""
UNKNOWN = "unknown"  # why an object is ignored


def explain_beside(
    model: VisionModel,
    inputs: Input | Sequence[Input],
    truth: Truth,
    methods: Sequence[Method],
    *,
    least: float = LEAST,
    seed: int = 0,
) -> Iterator[tuple[str, JudgedPicture | PellucidError]]:
    """Explain a detector's hits, misses and false boxes, picture by picture: `(name, boxes or what went wrong)`.

    A hit and a false box are explained as the box that is answered, a miss as "why no box here".

    Args:
        truth: what is truly in the pictures (see `pellucid.truth.read_truth`).
        least: overlap from which a box hits an object.

    Raises:
        DataError: the model knows none of the classes.
        ModelError: it is no detector of pictures.
    """
    classes = classes_beside(model, truth)
    weights = model.fingerprint()
    for name, item in prepared(model, inputs):
        if isinstance(item, PellucidError):
            yield name, item
            continue
        try:
            there = truth.of(item.source["source"] or name).on(size_of(item))
        except DataError as error:
            yield name, error
            continue
        yield name, _picture(model, item, there, classes, methods, (least, seed, weights))


def task_beside(model: VisionModel, inputs: Input | Sequence[Input]) -> Task:
    """What a model answers, recognised from the first picture that can be read where it is not declared.

    Raises:
        ModelError: it is one of clips.
    """
    if model.medium.moving:
        raise ModelError(
            f"{model.name or 'The model'} takes clips, and --truth is told of pictures and volumes: in Python "
            "e.reliability(mask) lays a map beside a mask (T, H, W), one of each frame that was shown."
        )
    if model.task is None:
        for _, item in prepared(model, inputs):
            if not isinstance(item, PellucidError):
                x = item.x[None].to(model.device, model.dtype)
                return model.settled(x, model.outputs(x)).answering
    return model.answering


def classes_beside(model: VisionModel, truth: Truth) -> dict[str, int]:
    """The detector's class for each label of the truth that it knows.

    Raises:
        DataError: it knows none.
        ModelError: it is no model of pictures.
    """
    _of_pictures(model)
    classes = class_numbers(model.labels, truth.numbers)
    if not classes:
        known = ", ".join((model.labels or ())[:3])
        raise DataError(
            f"The model knows none of the classes of {truth.source} ({', '.join(truth.labels[:3])} ...); it knows "
            f"{known} ...: give labels that agree, --labels FILE."
        )
    return classes


def answers_beside(
    model: VisionModel, item: Prepared, there: Annotated, classes: dict[str, int]
) -> tuple[list[Annotation], list[BoxAnswer]]:
    """The objects of a picture and the boxes that the detector answers, each class by one name.

    Raises:
        ModelError: it is no detector.
    """
    x = item.x[None].to(model.device, model.dtype)
    output = model.outputs(x)
    task = model.settled(x, output).answering
    if not isinstance(task, BoxTask):
        raise ModelError(
            f"Hits and misses are told of boxes, and the model answers {task.name}: give a detector, or say what it "
            "answers (--task boxes)."
        )
    called = {number: label for label, number in reversed(classes.items())}  # each class by one of its names
    objects = [_known(each, classes, called) for each in there.objects]
    found = Detections.of(output).answered()[0]
    rows = zip(found.labels.tolist(), found.scores.tolist(), found.boxes.tolist(), strict=True)
    answers = [
        BoxAnswer(k, called.get(i, model.label(i)), score, item.geometry.source_box(box))
        for k, (i, score, box) in enumerate(rows)
    ]
    return objects, answers


def _of_pictures(model: VisionModel) -> None:
    if model.medium.axes != 2:
        raise ModelError(f"{model.name or 'The model'} takes {model.medium.name}s, and the truth is told of pictures.")


def size_of(item: Prepared) -> tuple[int, int]:
    """Height and width of the picture itself."""
    return item.geometry.source_size[-2], item.geometry.source_size[-1]


def _picture(
    model: VisionModel,
    item: Prepared,
    there: Annotated,
    classes: dict[str, int],
    methods: Sequence[Method],
    how: tuple[float, int, str],
) -> JudgedPicture:
    least, seed, weights = how
    objects, answers = answers_beside(model, item, there, classes)
    boxes = [JudgedBox(judged) for judged in judge_boxes(answers, objects, least)]
    asked = _asked(boxes, classes, item)
    if asked:
        targets = [target for _, target in asked]
        ((_, maps),) = explain_batch(model, [item], methods, targets, seed, weights=weights)
        for k, (box, _) in enumerate(asked):
            box.maps.extend(maps[k * len(methods) : (k + 1) * len(methods)])
            box.figures = _figures(box, objects)
            if box.judged.why:
                for e in box.maps:
                    e.remarks.insert(0, f"A false box: {box.judged.why}.")
    left = sum(not box.maps and not box.note for box in boxes)
    remarks = [f"{left} more of them have no map: of each kind the {MOST} surest are explained."] if left else []
    if strange := sorted({o.label for o in objects if o.ignored == UNKNOWN}):
        remarks.append(f"The model knows no {', '.join(strange)}: such objects are no misses.")
    return JudgedPicture(replace(there, objects=tuple(objects)), item.source["source"], boxes, remarks)


def _known(each: Annotation, classes: dict[str, int], called: dict[int, str]) -> Annotation:
    """An object under the one name that its class goes by; what the model does not know can't be missed."""
    if each.label not in classes:
        return replace(each, ignored=each.ignored or UNKNOWN)
    return replace(each, label=called[classes[each.label]])


def _asked(boxes: list[JudgedBox], classes: dict[str, int], item: Prepared) -> list[tuple[JudgedBox, BoxTarget]]:
    """What is asked of the model for each box that is explained."""
    found: list[tuple[JudgedBox, BoxTarget]] = []
    for kind in KINDS:
        for box in [b for b in boxes if b.judged.kind == kind][:MOST]:
            target = _target(box.judged, classes)
            try:
                target.placed([item.geometry])
            except AbsentError as absent:
                box.note = str(absent)
            else:
                found.append((box, target))
    return found


def _target(judged: Judged, classes: dict[str, int]) -> BoxTarget:
    if judged.answer is not None:
        return BoxTarget(judged.answer.number)
    assert judged.object is not None
    return BoxTarget(label=classes[judged.object.label], at=judged.object.box)


def _figures(box: JudgedBox, objects: Sequence[Annotation]) -> list[dict[str, float]]:
    """Of each map: of a hit or a miss beside its object and the others of the class, of a false box beside itself."""
    judged = box.judged
    shown = judged.object or judged.answer
    assert shown is not None
    others = [o.box for o in objects if o.label == shown.label and o is not judged.object and not o.ignored]
    return [box_figures(e, shown.box, others) for e in box.maps]
