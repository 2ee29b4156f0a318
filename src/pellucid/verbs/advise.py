"""`advise`: which methods suit this network and what is asked of it, why, and at what cost.

Nothing is taken from the names of methods or networks. Each method says in words what it needs; `NEEDS` holds, for each
word, how a network is asked whether it has that, and why not. What is asked is asked once, on one noise input.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from torch import nn

from pellucid.engine import Capture
from pellucid.engine.backward import Propagation
from pellucid.errors import ModelError, PellucidError
from pellucid.heatmaps import CAM, METHODS, AttentionRollout, Method
from pellucid.heatmaps.activations import choose_layer
from pellucid.heatmaps.attention import attention_weights
from pellucid.heatmaps.composites import COMPOSITES, Strengths
from pellucid.media.medium import PICTURE
from pellucid.models.layers import Layer, _noise_like
from pellucid.models.model import VisionModel
from pellucid.models.opens import opens
from pellucid.models.targets import Target, TargetLike
from pellucid.progress import task
from pellucid.registry import Registry
from pellucid.results import Heatmaps
from pellucid.scoring.job import Job, prepare
from pellucid.verbs.costs import passes
from pellucid.verbs.explain import explain_each
from pellucid.verbs.inputs import Input, ModelLike, as_model, one

Verdict = Literal["suits", "with a caveat", "refused"]
_MANY = re.compile(r"forwards?.* (a|an) (channel|cell|cluster|iteration|mask|node)\b")
_PARTS = re.compile(r"\ba (channel|cell|cluster|mask)\b")  # of which a network has as many as it has


@dataclass
class Network:
    """A model and what is asked of it, as far as methods need to know; each fact is found when it is first asked for.

    Attributes:
        model: the model.
        job: one noise input of its size, with the target.
    """

    model: VisionModel
    job: Job

    @cached_property
    def layer(self) -> Layer | str:
        """The layer that a class activation map would explain, or why there is none."""
        found: Layer | str = _found(lambda: choose_layer(None, self.job))
        return found

    @cached_property
    def attention(self) -> str:
        """Why its attentions cannot be read as one grid; empty: they can."""

        def read() -> str:
            steps = [w.mean(1) for w in attention_weights(self.job, self.job.inputs)]
            AttentionRollout().parted(self.job, steps)
            return ""

        found: str = _found(read)
        return found

    @cached_property
    def unruled(self) -> list[str]:
        """Functions that it calls and for which there is no rule."""
        with Capture(self.job.module, watch=self.job.watch, input_gradient=True) as capture:
            run = Propagation(COMPOSITES.find("epsilon")(Strengths()), capture.module)
            with run:
                capture.forward(self.job.inputs)
        return [name for name, _ in run.unknown.most_common()]

    @cached_property
    def pooled_head(self) -> str:
        """Why it does not end in global average pooling and one linear layer; empty: it does."""

        def ask() -> str:
            CAM().run([CAM()], self.job)
            return ""

        found: str = _found(ask)
        return found

    @cached_property
    def seconds(self) -> float:
        """Of one forward pass of one input."""
        with torch.no_grad(), Capture(self.job.module) as capture:
            capture.forward(self.job.inputs)
            took = []
            for _ in range(3):  # the least of them: what else the machine does only adds
                start = time.perf_counter()
                capture.forward(self.job.inputs)
                took.append(time.perf_counter() - start)
            return min(took)


def _found(ask: Callable[[], Any]) -> Any:
    try:
        return ask()
    except PellucidError as error:
        return str(error)


Asked = Callable[[Network], tuple[str, str]]
"""A network -> (why it has not what is needed, what is to be known if it has); empty texts: nothing."""


def _layer(network: Network) -> tuple[str, str]:
    found = network.layer
    if isinstance(found, str):
        return found, ""
    grid = " x ".join(map(str, found.layout.grid))
    return "", f"explains layer {found.name}, {grid} cells"


def _functions(network: Network) -> tuple[str, str]:
    missing = network.unruled
    if not missing:
        return "", "every function has a rule"
    return "", f"no rule for {', '.join(missing)}: there the plain gradient is followed"


def _of_task(word: str) -> Asked:
    def ask(network: Network) -> tuple[str, str]:
        task = network.model.task
        return ("" if task is not None and task.name == word else f"the model does not answer {word}"), ""

    return ask


def _recurrent(network: Network) -> tuple[str, str]:
    has = any(isinstance(part, nn.RNNBase) for part in network.job.module.modules())
    return ("" if has else "the network has no recurrent layer (nn.LSTM, nn.GRU, nn.RNN)"), ""


def _open(word: str) -> Asked:
    def ask(network: Network) -> tuple[str, str]:
        return ("" if word in opens(network.job.module) else f"the model is a black box and opens no {word}"), ""

    return ask


NEEDS: Registry[Asked] = Registry(
    "need",
    {
        "outputs": _open("outputs"),
        "gradients": _open("gradients"),
        "a layer": _layer,
        "functions": _functions,
        "attention": lambda network: (network.attention, "attention over one grid of tokens"),
        "tokens": lambda network: (network.attention, ""),
        "a recurrent layer": _recurrent,
        "a clip": lambda network: (("" if network.job.is_clip else "the model takes no clips"), ""),
        "a box": _of_task("boxes"),
        "a region": _of_task("regions"),
        "a pair": _of_task("embedding"),
        "then global average pooling and one linear layer": lambda network: (network.pooled_head, ""),
    },
)
"""What a method may say that it needs -> how a network is asked for it."""


@dataclass(frozen=True)
class Advised:
    """What is said of one method.

    Attributes:
        method: its name.
        verdict: whether it suits.
        why: reasons, one sentence or half of one each.
        cost: in passes, in words.
        white_box: it needs more than outputs.
        many: a pass for each channel, cell or iteration, or as many as masks.
    """

    method: str
    verdict: Verdict
    why: tuple[str, ...]
    cost: str
    white_box: bool
    many: bool


@dataclass(frozen=True)
class Advice:
    """All methods on one network.

    Attributes:
        entries: in the order of `METHODS`.
        seconds: of one forward pass of one input, the least of three.
        target: what is asked, in words.
    """

    entries: tuple[Advised, ...]
    seconds: float
    target: str = ""

    @property
    def black_box(self) -> bool:
        """The model opens nothing but its outputs."""
        return all(e.verdict == "refused" for e in self.entries if e.white_box)

    def seconds_of(self, entry: Advised) -> float | None:
        """Of one map, at the most; a backward counted as two forwards. None: it hangs on how many parts there are."""
        forwards, backwards = passes(METHODS[entry.method])
        uncounted = not entry.white_box or _PARTS.search(entry.cost) is not None
        return None if uncounted else self.seconds * (forwards + 2 * backwards)

    def price(self) -> tuple[int, int, float]:
        """Of one map by each of `methods()`: forwards, backwards, and seconds, a backward counted as two forwards."""
        each = [passes(METHODS[name]) for name in self.methods()]
        forwards, backwards = (sum(column) for column in zip(*each, strict=True)) if each else (0, 0)
        return forwards, backwards, self.seconds * (forwards + 2 * backwards)

    def methods(self, *, many: bool = False) -> list[str]:
        """The white-box methods that suit, those with a caveat among them; with `many`, also those of many passes."""
        return [e.method for e in self.entries if e.verdict != "refused" and e.white_box and (many or not e.many)]

    def refused(self) -> list[Advised]:
        """Methods that do not suit."""
        return [e for e in self.entries if e.verdict == "refused"]

    def as_dict(self) -> dict[str, Any]:
        """As JSON can hold it."""
        rows = [
            {
                "method": e.method,
                "verdict": e.verdict,
                "why": list(e.why),
                "cost": e.cost,
                "many": e.many,
                "seconds": self.seconds_of(e),
            }
            for e in self.entries
        ]
        return {"target": self.target, "seconds a forward": self.seconds, "methods": rows}


def advise(model: ModelLike, target: TargetLike = None, *, inputs: Input | None = None) -> Advice:
    """Which methods suit a network and a target, why, and at what cost; a few dozen passes of one input.

    Args:
        model: a `VisionModel`, or a model's name for `load`.
        target: what would be explained; None: the top class.
        inputs: one picture, clip or volume; None: a blank picture.

    Raises:
        PellucidError: the model cannot be loaded or run, or the target does not fit it.
    """
    vision = as_model(model)
    if inputs is not None:
        x = one(vision, inputs).x[None].to(vision.device, vision.dtype)
    elif vision.medium is PICTURE:
        size = vision.pictures.input_size
        x = torch.zeros(1, vision.pictures.channels, *size, device=vision.device, dtype=vision.dtype)
    else:
        raise ModelError("The model takes clips or volumes, whose size is not known: give one of them as the input.")
    settled = vision.settled(x, vision.outputs(x))
    network = Network(settled, prepare(settled, _noise_like(x), [target]))
    asked = network.job.targets[0].name(vision.labels)
    return Advice(tuple(_advised(cls, network) for cls in METHODS.values()), network.seconds, asked)


def _advised(cls: type[Method], network: Network) -> Advised:
    missing: list[str] = []
    known: list[str] = []
    words: Sequence[str] = cls.needs.split(", ")
    if not cls.required <= opens(network.job.module):
        missing.append(f"it needs {cls.needs}, and the model is a black box")
    else:
        for word in words:
            ask = NEEDS.get(word)
            if ask is None:
                known.append(f"whether there is {word} is not known")
                continue
            without, note = ask(network)
            missing += [without] if without else []
            known += [note] if note else []
            if without:
                break
    caveat = any("plain gradient" in note or "not known" in note for note in known)
    verdict: Verdict = "refused" if missing else "with a caveat" if caveat else "suits"
    white = bool(cls.required - {"outputs"})
    many = not white or _MANY.search(cls.cost) is not None
    return Advised(cls.name, verdict, tuple(dict.fromkeys(missing or known)), cls.cost, white, many)


def _of_one_picture(before: Heatmaps, more: Heatmaps) -> Heatmaps:
    """Maps of one picture that were made apart, as one group: what a check shows to the model is shown once."""
    for e in more:
        e.session, e.picture = before[0].session, before[0].picture
    return Heatmaps([*before, *more])


def explain_all_that_suit(
    model: VisionModel, inputs: Any, methods: Sequence[Method], targets: Sequence[Target], *, seed: int = 0
) -> tuple[dict[str, Heatmaps | PellucidError], dict[str, str]]:
    """Each method by itself, so that one which fails does not stop the others.

    Returns:
        The explanations of each input, or what was wrong with it; and for each method that failed, its sentence.
    """
    found: dict[str, Heatmaps | PellucidError] = {}
    failed: dict[str, str] = {}
    with task("methods", len(methods)) as advance:
        for m in methods:
            try:
                for name, result in explain_each(model, inputs, [m], targets, seed=seed):
                    before = found.get(name)
                    if isinstance(result, PellucidError) or isinstance(before, PellucidError):
                        found[name] = before if isinstance(before, PellucidError) else result
                    else:
                        found[name] = result if before is None else _of_one_picture(before, result)
            except PellucidError as error:
                failed[m.name] = str(error)
            advance(1)
    return found, failed
