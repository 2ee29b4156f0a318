"""What an audit found, as data: in words, and which samples each finding is about."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from pellucid.audit.cases import Case
from pellucid.audit.failures import LEAST, FailureScore
from pellucid.audit.objects import on_object
from pellucid.audit.odd import OddPictures
from pellucid.audit.reasons import LEAST as ENOUGH
from pellucid.audit.reasons import Reliance
from pellucid.audit.review import Review
from pellucid.audit.samples import PROPERTIES, SampleTable
from pellucid.audit.slices import WeakSlice, sure, told
from pellucid.explanation import Brief, Record
from pellucid.language import counted
from pellucid.numerics.proportions import interval

FEW = 20  # pictures exchanged, below which a test finds large effects alone


@dataclass(repr=False)
class Findings(Brief):
    """Where a model goes wrong on many pictures, and on what evidence.

    Attributes:
        samples: the table, one row a picture.
        sources: what opens each picture.
        labels: names of the model's classes.
        reasons: what each class rests on that is no object, and what was tested besides.
        slices: where it errs more often; empty where nothing is known of the truth.
        review: calibration, confusions, what is wrong with the data.
        record: provenance.
        notes: what a reader must know.
        failure: how likely each answer is wrong; None where too few are, or nothing is a probability.
        cases: the surest wrong answers beside similar pictures.
        leaked: samples that are also among the training pictures.
        odd: pictures unlike the others.
    """

    samples: SampleTable
    sources: list[str]
    labels: list[str]
    reasons: list[Reliance]
    slices: list[WeakSlice]
    review: Review
    record: Record
    notes: list[str]
    failure: FailureScore | None = None
    cases: list[Case] = field(default_factory=list)
    leaked: tuple[int, ...] = ()
    odd: list[OddPictures] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Of the pictures."""
        return str(self.record.input.get("name") or "pictures")

    @property
    def wrong_reasons(self) -> list[Reliance]:
        """What classes rest on that is no object."""
        return [r for r in self.reasons if r.relied]

    @property
    def sure_slices(self) -> list[WeakSlice]:
        """Slices that err more often beyond chance; of those that are nearly the same the first."""
        return sure(self.slices)

    def lines(self) -> Iterator[str]:
        """The summary, a sentence each."""
        r = self.review
        known = int(self.samples.known.sum())
        if known:
            low, high = interval(known - int(self.samples.wrong.sum()), known)
            yield f"{r.accuracy:.1%} of {known} answers are right [{low:.1%}, {high:.1%}]."
        if r.calibration is not None:
            c = r.calibration
            yield f"Calibration error {c.error:.1%} [{c.low:.1%}, {c.high:.1%}]."
        yield from self._on_the_object()
        if self.failure is not None:
            yield f"{self.failure.line}."
        elif known and min(wrong := int(self.samples.wrong.sum()), known - wrong) < LEAST:
            yield (
                f"Too few answers to learn which look wrong: {LEAST} wrong and {LEAST} right ones are needed, and "
                f"there are {wrong} and {known - wrong}."
            )
        yield from (f"{reason.line}." for reason in self.wrong_reasons)
        if not self.wrong_reasons:
            tested = len(self.reasons)
            moving = len(self.samples.names) > len(PROPERTIES)
            besides = (
                "a mark, frame, border, background, colour, texture or order"
                if moving
                else ("a mark, border, background, colour or texture")
            )
            yield (
                f"No class was found to rest on {besides} ({tested} tests)."
                if tested
                else "Too few pictures of any class to test what the answers rest on."
            )
        tested, answered = len({r.label for r in self.reasons}), len(np.unique(self.samples.answers))
        if 0 < tested < answered:
            yield (
                f"Only {tested} of the {answered} classes that were answered could be tested for that: a class needs "
                f"{ENOUGH} pictures."
            )
        fewest = min((r.pairs for r in self.reasons), default=FEW)
        if fewest < FEW:
            yield f"Some of these tests had {fewest} pictures of the class only: they find large effects alone."
        weak = self.sure_slices
        yield from told(weak)
        if known and not weak:
            yield (
                "No answer is wrong, so there is no slice to look for."
                if not self.samples.wrong.any()
                else "No slice errs more often than the rest beyond chance."
                if self.slices
                else "Too few answers to test any slice."
            )
        for confusion in r.confusions[:3]:
            a, b = self.labels[confusion.truth], self.labels[confusion.answer]
            count = len(confusion.members)
            yield f"`{a}` is taken for `{b}` once." if count == 1 else f"`{a}` is taken for `{b}` {count} times."
        yield from self._of_the_data()

    def _of_the_data(self) -> Iterator[str]:
        """What is odd in the pictures and their labels."""
        r = self.review
        pairs, contradicting, doubtful, astray = map(len, (r.duplicates, r.contradicting, r.mislabelled, r.astray))
        if pairs:
            yield f"Pairs of files that show one picture: {pairs}, with different labels: {contradicting}."
        if self.leaked:
            yield f"Pictures that are also among the training pictures: {len(self.leaked)}."
        if doubtful:
            yield (
                f"Labels that look wrong: {doubtful} (the model is as sure of another class as of that one's own). "
                f"They may be the model's own errors instead: it is right on {r.accuracy:.0%}."
            )
        if r.undoubted:
            names = ", ".join(f"`{self.labels[k]}`" for k in r.undoubted[:3]) + ", ..." * (len(r.undoubted) > 3)
            yield (
                f"Labels of {counted(len(r.undoubted), 'class')} are not judged ({names}): on their own pictures the "
                "model holds another class for likelier."
            )
        if astray and self.samples.objects is None:
            yield f"Answers that are confident and wrong, with their evidence at the border of the picture: {astray}."
        elif astray:
            yield f"Answers that are confident and wrong, with less evidence on the object than by chance: {astray}."
        for odd in self.odd:
            yield f"{odd.line}."
            if odd.errors:
                yield f"{odd.errors}."

    def _on_the_object(self) -> Iterator[str]:
        """How much of the evidence lies on the object, where its place is known."""
        share, size = on_object(self.samples)
        told, wrong = np.isfinite(share), self.samples.wrong
        if not told.any():
            return
        yield (
            f"On the object, {size[told].mean():.0%} of what the model sees, lies {share[told].mean():.0%} of the "
            f"evidence (mean of {told.sum()} pictures)."
        )
        if (told & wrong).any() and (told & ~wrong).any():
            yield (
                f"Where the answer is right it is {share[told & ~wrong].mean():.0%}, where it is wrong "
                f"{share[told & wrong].mean():.0%}."
            )
