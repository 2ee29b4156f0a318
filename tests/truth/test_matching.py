"""Answers beside the truth: who hits what, what is missed, and what is wrong with the rest."""

import pytest

from pellucid.truth import Annotation, BoxAnswer, judge_boxes, overlap

DOG, CAT = (0.0, 0.0, 10.0, 10.0), (40.0, 40.0, 60.0, 60.0)


def answer(number, label, score, *box):
    return BoxAnswer(number, label, score, tuple(map(float, box)))


def judged(answers, objects, **how):
    found = judge_boxes(answers, objects, **how)
    return [(j.kind, j.answer.number if j.answer else None, j.object.label if j.object else None, j.why) for j in found]


def test_overlap_is_intersection_over_union():
    assert overlap(DOG, DOG) == 1
    assert overlap(DOG, (5, 0, 15, 10)) == pytest.approx(50 / 150)
    assert overlap(DOG, CAT) == 0
    assert overlap((1, 1, 1, 1), DOG) == 0


def test_the_surest_box_takes_the_object_and_each_mistake_has_its_name():
    objects = [Annotation("dog", DOG), Annotation("cat", CAT), Annotation("bird", (80.0, 0.0, 90.0, 10.0))]
    answers = [
        answer(0, "dog", 0.9, 0, 0, 10, 8),
        answer(1, "dog", 0.8, 0, 0, 10, 10),  # lies better, and comes too late
        answer(2, "dog", 0.7, 40, 40, 60, 58),
        answer(3, "cat", 0.6, 40, 40, 50, 50),
        answer(4, "dog", 0.5, 40, 40, 50, 50),
        answer(5, "cat", 0.4, 20, 0, 30, 10),
    ]
    assert judged(answers, objects) == [
        ("hit", 0, "dog", ""),
        ("miss", None, "cat", ""),
        ("miss", None, "bird", ""),
        ("false", 1, None, "a second box of an object that has one"),
        ("false", 2, None, "the object there is of another class: cat"),
        ("false", 3, None, "badly placed: it overlaps the object by 25%"),
        ("false", 4, None, "badly placed, and of another class: cat"),
        ("false", 5, None, "nothing that was annotated is there"),
    ]
    found = judge_boxes(answers, objects)
    assert found[1].overlap == pytest.approx(0.25), "how near the detector came to what it misses"


def test_a_lower_bound_lets_more_hit():
    objects = [Annotation("cat", CAT)]
    answers = [answer(0, "cat", 0.6, 40, 40, 50, 50)]
    assert judged(answers, objects)[0][0] == "miss"
    assert judged(answers, objects, least=0.2) == [("hit", 0, "cat", "")]


def test_crowds_and_difficult_objects_are_neither_found_nor_missed():
    objects = [
        Annotation("dog", (0.0, 0.0, 100.0, 100.0), ignored="crowd"),
        Annotation("cat", CAT, ignored="difficult"),
    ]
    answers = [
        answer(0, "dog", 0.9, 10, 10, 20, 20),
        answer(1, "cat", 0.8, 40, 40, 60, 59),
        answer(2, "cat", 0.7, 42, 42, 46, 46),
    ]
    assert [j[:2] for j in judged(answers, objects)] == [("false", 2)], "small inside of a difficult one is no match"
    assert judged([], objects) == []


def test_two_boxes_of_one_class_share_two_objects_as_coco_does():
    objects = [Annotation("dog", DOG), Annotation("dog", (4.0, 0.0, 14.0, 10.0))]
    answers = [answer(0, "dog", 0.5, 1, 0, 11, 10), answer(1, "dog", 0.9, 2, 0, 12, 10)]
    found = judge_boxes(answers, objects)
    assert [(j.answer.number, j.object.box[0]) for j in found] == [(1, 0.0), (0, 4.0)] or [
        (j.answer.number, j.object.box[0]) for j in found
    ] == [(1, 4.0), (0, 0.0)]
    assert {j.kind for j in found} == {"hit"}
