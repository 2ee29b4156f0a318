"""What the model wrongly rests on exchanged between classes, and the last layer learned anew on frozen features.

Kirichenko et al. 2023 (arXiv:2204.02937) showed that a network which rests on a wrong cue mostly holds the right one
too, so that its last layer alone needs to be learned anew, on pictures in which the cue says nothing. They take such
pictures from group labels. Here they are made: the audit names the parts, and an exchange gives each class those
of others. Every class in every form, and every weak slice, weighs the same.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold
from torch import Tensor, nn

from pellucid.audit.evidence import PicturePart, beside, common_parts, region_part
from pellucid.audit.marks import overlap
from pellucid.audit.proof import NEUTRAL
from pellucid.audit.reasons import Reliance
from pellucid.engine import leave_no_trace, unwrap
from pellucid.engine.hooks import Hooks
from pellucid.engine.run import run_model
from pellucid.errors import DataError, ModelError
from pellucid.language import some
from pellucid.models.model import VisionModel

_STRENGTHS = (10.0, 1.0, 0.1, 0.01)  # inverse of the penalty on weights of standardised features
_FOLDS = 4
_ONE_PLACE = 0.5  # overlap of two marks from which on they lie at one place
LEAST = 8  # pictures of each class, in each half

Rows = NDArray[np.int64]
Opener = Callable[[Sequence[int]], Tensor]
Show = Callable[[Rows], Tensor]
"""Numbers of pictures -> inputs `(n, C, H, W)`."""


@dataclass(frozen=True)
class Form:
    """How pictures are shown: as they are, or with a part exchanged.

    Attributes:
        name: in words.
        part: what is exchanged; None: nothing.
        labels: of the classes that rest on the part.
    """

    name: str
    part: PicturePart | None = None
    labels: tuple[str, ...] = ()

    def of(self, x: Tensor, others: Tensor) -> Tensor:
        """Pictures `(n, C, H, W)` in this form; `others` give the part."""
        return x if self.part is None else self.part.exchange(x, others)


def forms(reasons: Sequence[Reliance], size: tuple[int, int]) -> list[Form]:
    """As they are, and with each part exchanged that classes rest on.

    What several classes rest on is one part: of parts that any picture has those of one kind; of marks those that lie
    at one place (half of the pixels of both), exchanged where any of them lies. Broader parts leave the marks in place,
    which have their own form.
    """
    usual = {part.kind: part for part in common_parts(size)}
    parts: list[tuple[PicturePart, list[str]]] = []
    for r in reasons:
        if r.kind in usual:
            part = usual[r.kind]
        elif r.region is not None:
            part = region_part(r.kind, r.name, torch.from_numpy(r.region))
        else:
            continue
        k = next((k for k, (known, _) in enumerate(parts) if _one_part(known, part)), len(parts))
        known, labels = parts[k] if k < len(parts) else (part, [])
        if part.region is not None and known.region is not None:
            known = region_part(known.kind, known.name, known.region | part.region)
        parts[k : k + 1] = [(known, [*labels, r.label])]
    marks = [part.region for part, _ in parts if part.kind == "mark" and part.region is not None]
    if marks:
        held = torch.stack(marks).any(0)
        parts = [(part if part.kind == "mark" else beside(part, held), labels) for part, labels in parts]
    return [Form("as they are"), *(Form(_exchanged(part, labels), part, tuple(labels)) for part, labels in parts)]


def _one_part(first: PicturePart, second: PicturePart) -> bool:
    if first.kind != second.kind or first.region is None or second.region is None:
        return first.kind == second.kind
    return overlap(first.region, second.region) >= _ONE_PLACE


def _exchanged(part: PicturePart, labels: Sequence[str]) -> str:
    return f"{part.name} of {some(f'`{label}`' for label in labels)} exchanged"


def donors(truth: Rows, form: Form, labels: Sequence[str], rng: np.random.Generator) -> Rows:
    """For each picture the number of one that gives it its part: to a class that rests on it any other class's, to all
    others one of those classes.
    """
    resting = np.array([labels.index(label) for label in form.labels], np.int64)
    found = np.arange(len(truth))
    for k in np.unique(truth):
        mine = np.flatnonzero(truth == k)
        pool = np.flatnonzero(truth != k if k in resting else np.isin(truth, resting))
        if len(pool):
            found[mine] = rng.choice(pool, len(mine))
    return found


def any_donors(truth: Rows, count: int, rng: np.random.Generator) -> Rows:
    """Numbers of `count` pictures, each class as likely as any other."""
    chance = 1 / np.bincount(truth)[truth]
    found: Rows = rng.choice(len(truth), count, p=chance / chance.sum())
    return found


def telling_nothing(x: Tensor, opened: Opener, truth: Rows, every: Sequence[Form], rng: np.random.Generator) -> Tensor:
    """Pictures `(n, C, H, W)` with each part of others, drawn over all classes alike: it says no more than chance."""
    for form in every:
        if form.part is not None:
            x = form.of(x, opened(any_donors(truth, len(x), rng).tolist()))
    return x


def shown(
    opened: Opener, truth: Rows, every: Sequence[Form], labels: Sequence[str], rng: np.random.Generator
) -> Iterator[tuple[str, Show]]:
    """Each form's name and what shows pictures in it; where parts were found, also with parts that tell nothing."""
    for form in every:
        given = donors(truth, form, labels, rng)

        def show(some: Rows, form: Form = form, given: Rows = given) -> Tensor:
            x = opened(some.tolist())
            return x if form.part is None else form.of(x, opened(given[some].tolist()))

        yield form.name, show
    if any(form.part is not None for form in every):
        yield NEUTRAL, lambda some: telling_nothing(opened(some.tolist()), opened, truth, every, rng)


def last_layer(model: VisionModel, x: Tensor) -> str:
    """The linear layer whose answer is the class scores.

    Raises:
        ModelError: there is none, or it answers something else.
    """
    module, seen = unwrap(model.module), dict[str, tuple[Tensor, Tensor]]()
    layers = [(name, m) for name, m in module.named_modules() if isinstance(m, nn.Linear)]
    with leave_no_trace(module), torch.no_grad(), Hooks() as hooks:
        for name, layer in layers:

            def keep(_module: nn.Module, given: tuple[Tensor, ...], output: Tensor, name: str = name) -> None:
                seen[name] = given[0].detach(), output.detach()

            hooks.behind(layer, keep)
        scores = model.reading.class_scores(run_model(module, x.detach().clone()))
    for name, (given, output) in reversed(seen.items()):
        if output.shape == scores.shape and given.ndim == 2 and torch.allclose(output, scores, atol=1e-6, rtol=1e-5):
            return name
    raise ModelError(
        "The model's class scores are not the answer of one linear layer to a row of features, so its last layer "
        "cannot be learned anew by itself; the whole network can, if there is time for it (seconds=...)."
    )


def features(model: VisionModel, layer: str, x: Tensor) -> NDArray[np.float64]:
    """What the layer is given for each input, `(N, D)`."""
    module, seen = unwrap(model.module), list[Tensor]()
    with leave_no_trace(module), torch.no_grad(), Hooks() as hooks:
        hooks.before(module.get_submodule(layer), lambda _module, given, _named: seen.append(given[0].detach().clone()))
        for start in range(0, len(x), model.batch):
            run_model(module, x[start : start + model.batch].detach().clone())
    rows: NDArray[np.float64] = torch.cat(seen).double().cpu().numpy()
    return rows


@dataclass(frozen=True)
class HeadLesson:
    """What the last layer is learned from.

    Attributes:
        features: `(R, D)`.
        truth: `(R,)`, the classes.
        groups: `(R,)`: a class in a form, or in a weak slice.
        pictures: `(R,)`, number of the picture that a row was made of.
    """

    features: NDArray[np.float64]
    truth: Rows
    groups: Rows
    pictures: Rows

    @property
    def weights(self) -> NDArray[np.float64]:
        """Of each row: see `balanced`."""
        return balanced(self.truth, self.groups)


def balanced(truth: Rows, groups: Rows) -> NDArray[np.float64]:
    """Weights `(R,)` with which classes weigh the same, and the groups of a class do; their mean is 1.

    Were all groups alike, a class with more weak slices would be answered more often.
    """
    counts, classes = np.bincount(groups), np.unique(truth)
    of_class = {k: len(np.unique(groups[truth == k])) for k in classes}
    shares = np.array([of_class[k] for k in truth])
    found: NDArray[np.float64] = len(groups) / (len(classes) * shares * counts[groups])
    return found


def memberships(truth: Rows, slices: Sequence[Sequence[int]], classes: int) -> Rows:
    """The weak slice of each picture `(N,)`, counted from 1; 0 where it is in none, or is one of fewer than `LEAST` of
    its class there, as a few pictures must not weigh as much as a class.
    """
    found = np.zeros(len(truth), np.int64)
    for s, inside in enumerate(slices):
        own = np.array(inside, np.int64)
        enough = np.bincount(truth[own], minlength=classes)[truth[own]] >= LEAST
        found[own[enough]] = 1 + s
    return found


def lesson(
    model: VisionModel,
    layer: str,
    opened: Opener,
    truth: Rows,
    every: Sequence[Form],
    slices: Sequence[Sequence[int]],
    labels: Sequence[str],
    seed: int,
) -> HeadLesson:
    """Features of pictures in every form.

    Args:
        model: whose features they are.
        layer: the last one.
        opened: numbers of pictures -> inputs `(n, C, H, W)`.
        truth: the class of each, `(N,)`.
        every: form.
        slices: numbers of the pictures in each weak slice: see `memberships`.
        labels: names of the classes.
        seed: of who gives a part to whom.
    """
    rng = np.random.default_rng(seed)
    count, classes = len(truth), len(labels)
    weak = memberships(truth, slices, classes)
    members = np.where(weak > 0, len(every) - 1 + weak, 0)
    rows, groups = [], []
    for k, form in enumerate(every):
        given = donors(truth, form, labels, rng)
        for start in range(0, count, model.batch):
            some = np.arange(start, min(start + model.batch, count))
            x = opened(some.tolist())
            rows.append(features(model, layer, x if form.part is None else form.of(x, opened(given[some].tolist()))))
        groups.append((members if k == 0 else k) * classes + truth)
    return HeadLesson(
        np.concatenate(rows), np.tile(truth, len(every)), np.concatenate(groups), np.tile(np.arange(count), len(every))
    )


def learned(found: HeadLesson, classes: int, *, bias: bool) -> tuple[Tensor, Tensor | None, float]:
    """Weight `(K, D)` and bias `(K,)` of the layer, and the strength that was best for the worst group (4 folds).

    Multinomial logistic regression on standardised features, with the weights of the lesson.
    """
    X, scale = found.features, found.features.std(0)
    scale[scale < 1e-12] = 1
    shift = X.mean(0) if bias else np.zeros(X.shape[1])
    Z, w = (X - shift) / scale, found.weights

    def fit(strength: float, rows: Rows) -> LogisticRegression:
        net = LogisticRegression(C=strength, fit_intercept=bias, max_iter=2000)
        return net.fit(Z[rows], found.truth[rows], sample_weight=w[rows])

    def worst(strength: float) -> float:
        right = np.zeros(len(Z))
        for train, test in GroupKFold(_FOLDS).split(Z, groups=found.pictures):
            right[test] = fit(strength, train).predict(Z[test]) == found.truth[test]
        return min(float(right[found.groups == g].mean()) for g in np.unique(found.groups))

    best = max(_STRENGTHS, key=lambda strength: (worst(strength), -strength))
    net = fit(best, np.arange(len(Z)))
    coefficients, intercepts = net.coef_, net.intercept_ if bias else np.zeros(len(net.coef_))
    if classes == 2:  # one row stands for both
        coefficients, intercepts = (np.concatenate((-v / 2, v / 2)) for v in (coefficients, intercepts))
    weight = coefficients / scale
    found_bias = torch.from_numpy(intercepts - weight @ shift) if bias else None
    return torch.from_numpy(weight), found_bias, best


def repaired(model: VisionModel, layer: str, weight: Tensor, bias: Tensor | None) -> VisionModel:
    """A copy of the model with another last layer; the model itself stays as it is."""
    module = copy.deepcopy(unwrap(model.module))
    last = module.get_submodule(layer)
    assert isinstance(last, nn.Linear)
    with torch.no_grad():
        last.weight.copy_(weight)
        if last.bias is not None and bias is not None:
            last.bias.copy_(bias)
    return VisionModel(module, model.preprocess, model.labels, model.name, {}, model.reading, model.task)


def require_classes(truth: Rows, labels: Sequence[str], least: int = LEAST) -> None:
    """Raises DataError for a class with too few pictures to learn it anew, or to prove it, and for strange classes."""
    if strange := int((truth < 0).sum()):
        raise DataError(f"{strange} of the pictures are of no class that the model has: take them out of the folder.")
    counts = np.bincount(truth, minlength=len(labels))
    if short := [label for label, count in zip(labels, counts, strict=True) if count < least]:
        raise DataError(
            f"All classes are learned anew, and {len(short)} of them have fewer than {least} pictures to teach or to "
            f"prove it (first: {short[0]}): give more pictures of these, at least {2 * LEAST} of every class."
        )


def rights(models: Sequence[VisionModel], show: Show, truth: Rows) -> NDArray[np.bool_]:
    """Whether the top class is the true one, `(models, N)`, of pictures as they are shown."""
    found = np.zeros((len(models), len(truth)), bool)
    with ExitStack() as loans:
        for one in models:
            loans.enter_context(leave_no_trace(unwrap(one.module)))
        for start in range(0, len(truth), models[0].batch):
            some = np.arange(start, min(start + models[0].batch, len(truth)))
            x = show(some)
            for m, one in enumerate(models):
                answers = one.reading.class_scores(one.outputs(x)).argmax(1).cpu().numpy()
                found[m, some] = answers == truth[some]
    return found
