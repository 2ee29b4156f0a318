"""The results users hold: an explanation with its verbs `check`, `show` and `save`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from pellucid import storage
from pellucid.engine import Capture
from pellucid.errors import ModelError, PellucidError, StorageError
from pellucid.evaluation import Perturbed, cell_ranking, diagnose, frame_grid, judge, sanity_correlations
from pellucid.evaluation.faithfulness import cell_grid
from pellucid.explanation import Curve, Explanation, Quality
from pellucid.heatmaps.base import Attribution, Method, explain_all
from pellucid.media import Medium
from pellucid.models.layers import lend_layers
from pellucid.models.model import VisionModel
from pellucid.models.opens import opens
from pellucid.models.targets import Target
from pellucid.results.base import Result
from pellucid.results.shown import file_names, names_of_inputs, slug, unused

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_Wanted = tuple[tuple[int, str | None], Target | None]  # a method's id and the layer that it explained; for what


@dataclass
class Session:
    """One picture as one model saw it: what `check` needs, shared by all explanations of that picture.

    Attributes:
        model: the model explained.
        x: the picture as the model takes it, `(1, C, *space)`.
        seed: of whatever is random.
        weights: the model's fingerprint when it was explained.
    """

    model: VisionModel
    x: Tensor
    seed: int = 0
    weights: str = ""
    _perturbed: dict[tuple[Target, bool], Perturbed] = field(default_factory=dict, repr=False)

    def perturbed(self, target: Target, *, frames: bool = False) -> Perturbed:
        """The perturbed scores of a target; those of random masks are measured once per picture and target.

        With `frames` whole frames of a clip are shown and hidden, rather than cells of space (and time).
        """
        if (target, frames) not in self._perturbed:
            grid = (frame_grid if frames else cell_grid)(self.x.shape[2:])
            self._perturbed[target, frames] = Perturbed(partial(self._score, target), self.x, self.seed, grid)
        return self._perturbed[target, frames]

    def _score(self, target: Target, inputs: Tensor) -> Tensor:
        with Capture(self.model.module, watch=target.layers) as capture, torch.no_grad():
            output = capture.forward(inputs)
            repeated = target.select(torch.zeros(len(inputs), dtype=torch.long))
            return repeated.probability(output, capture.watched)


@dataclass(repr=False)
class Heatmap(Explanation):
    """An explanation of one picture by one method for one target.

    `attribution` holds the raw signed values; `heatmap()` maps them to the original picture; `check()` measures how
    far they can be trusted; `show()` and `save()` draw and store them.
    """

    session: Session | None = field(default=None, repr=False)
    ran: Method | None = field(default=None, repr=False)
    explained: Target | None = field(default=None, repr=False)

    def check(self) -> Quality:
        """Measure insertion, deletion, dependence on the weights and the completeness gap; kept as `quality`.

        Costs about 110 forward passes, 76 of them once for a picture and target, and two further explanations; up to
        520 more where the answer is close.

        Raises:
            ModelError: the model's weights are no longer those that were explained.
            StorageError: read from disk, so the model is not at hand.
        """
        check([self])
        assert self.quality is not None
        return self.quality

    def figure(self) -> Figure:
        """The picture beside its overlay, as a matplotlib figure."""
        return Heatmaps([self]).figure()

    def show(self) -> None:
        """Show the figure: in the notebook, or in the system's picture viewer."""
        Heatmaps([self]).show()

    def save(self, folder: str | Path) -> list[Path]:
        """Write the values (.npz), the record (.json) and the figure (.png) into `folder`; returns the files."""
        return Heatmaps([self]).save(folder)

    def html(self) -> str:
        """One page that needs nothing else (see `Heatmaps.html`)."""
        return Heatmaps([self]).html()

    def _repr_html_(self) -> str:
        return Heatmaps([self])._repr_html_()


@dataclass(repr=False)
class VideoHeatmap(Heatmap):
    """An explanation of one clip: `tube()` is the map over time and space, `spatial()` and `temporal()` its two sides.

    The time grid stays the model's own; it is interpolated only where it is drawn.
    """

    @property
    def times(self) -> tuple[float, ...]:
        """When the frames that the model was shown are shown, in seconds (frame numbers for a clip without times)."""
        return self.geometry.ticks

    def video(self, kind: str = "webm") -> bytes:
        """The clip with the map laid over it, as a WebM (VP9) or MP4 (H.264) video: to be looked at, not computed with.

        Raises:
            MediaError: PyAV is missing, or has no such encoder.
        """
        from pellucid.render import overlay_video

        return overlay_video(self, kind)

    def check(self) -> Quality:
        """Measure insertion and deletion over space and time and over whole frames, and dependence on the weights.

        Costs about 210 forward passes, 150 of them once for a clip and target, and two further explanations; up to
        520 more where the answer is close.

        Raises:
            ModelError: the model's weights are no longer those that were explained.
            StorageError: read from disk, so the model is not at hand.
        """
        return super().check()


_KINDS: dict[str, type[Heatmap]] = {"picture": Heatmap, "clip": VideoHeatmap}


def kind_of(medium: Medium) -> type[Heatmap]:
    """What an explanation of one of this medium is."""
    return _KINDS[medium.name]


class Heatmaps(list[Heatmap], Result):
    """Several explanations; those of one picture make one panel."""

    def by_picture(self) -> list[Heatmaps]:
        """Grouped by picture, in order."""
        groups: dict[int, Heatmaps] = {}
        for e in self:
            groups.setdefault(id(e.session) if e.session else id(e), Heatmaps()).append(e)
        return list(groups.values())

    def check(self) -> list[Quality]:
        """`Heatmap.check` for all, sharing what can be shared."""
        check(self)
        return [e.quality for e in self if e.quality is not None]

    @property
    def caption(self) -> str:
        """The picture, the methods, the targets."""
        from pellucid.render.figure import caption

        return caption(self)

    def figure(self) -> Figure:
        """One panel of all explanations, which must be of one picture."""
        from pellucid.render import panel

        return panel(self)

    def show(self) -> None:
        """Show each picture's panel: in the notebook, or in the system's picture viewer."""
        for group in self.by_picture():
            Result.show(group)

    def save(self, folder: str | Path) -> list[Path]:
        """Write each explanation's values and record, and each picture's panel, into `folder`; returns the files."""
        taken = names_of_inputs(folder, [e.record.input["source"] for e in self])
        return [file for group in self.by_picture() for file in group.save_panel(Path(folder), taken)]

    def save_panel(self, folder: Path, taken: set[str]) -> list[Path]:
        """`save` for the explanations of one picture, under a name that is not in `taken`; the panel comes last."""
        stem = unused(slug(self[0].name), taken)
        files: list[Path] = []
        for e, name in zip(self, file_names(self), strict=True):
            files += storage.save(e, folder / f"{stem}.{name}")
            if isinstance(e, VideoHeatmap) and e.kind == "map" and e.picture is not None:
                files.append(storage.write_bytes(folder / f"{stem}.{name}.webm", e.video()))
        return [*files, storage.write_bytes(folder / f"{stem}.png", self.png())]

    def html(self) -> str:
        """One page that needs nothing else: the panel, how far each map may be believed, its record."""
        from pellucid.render.pages.heatmaps import heatmap_page

        return heatmap_page(self, self.caption)

    def _repr_html_(self) -> str:
        return "\n".join(Result._repr_html_(group) for group in self.by_picture())


def check(explanations: Iterable[Heatmap]) -> None:
    """Measure the quality of explanations, sharing random masks and randomised models among those of a picture."""
    for group in Heatmaps(explanations).by_picture():
        session = group[0].session
        if session is None and "windows" in group[0].record.input:
            raise StorageError(
                "A clip explained in windows is not measured as a whole: check one stretch of it, "
                "frames='dense:16@12.5'."
            )
        if session is None:
            raise StorageError(
                "This explanation was read from disk: explain the picture again with its model to check it."
            )
        if session.weights and session.model.fingerprint() != session.weights:
            raise ModelError(
                "The model's weights have changed since this map was made, so it can't be measured on them: explain "
                "the picture again, and check before training goes on."
            )
        sound = [e for e in group if diagnose(e.attribution, signed=False) is None]
        sanity: dict[int, float | None] = dict.fromkeys(map(id, sound))
        if "layers" in opens(session.model.module):  # a black box has no weights to shuffle
            sanity |= zip(map(id, sound), _sanity(session, sound), strict=True)
        for e in group:
            e.quality = _judged(e, session, sanity.get(id(e)), sound=id(e) in sanity)


def _judged(e: Heatmap, session: Session, sanity: float | None, *, sound: bool) -> Quality:
    problem = diagnose(e.attribution, e.signed)
    gap, jump = e.facts.get("completeness_gap"), e.facts.get("jump_at_baseline", 0.0)
    if not sound or e.kind == "channels" or e.explained is None:
        return judge(sanity=sanity, completeness_gap=gap, jump=jump, problem=problem)
    perturbed = session.perturbed(e.explained)
    insertion, deletion = perturbed.curves(cell_ranking(e.map()[0], perturbed.grid))
    agreement = perturbed.agreement(e.map()[0])
    in_time = _in_time(e, session, e.explained)
    return judge(
        insertion=insertion,
        deletion=deletion,
        agreement=agreement,
        in_time=in_time,
        sanity=sanity,
        completeness_gap=gap,
        jump=jump,
        problem=problem,
    )


def _in_time(e: Heatmap, session: Session, target: Target) -> tuple[Curve, Curve] | None:
    """Insertion and deletion of a clip's frames in the order of the temporal curve; None for pictures."""
    if not e.is_clip or session.x.shape[2] < 2:
        return None
    perturbed = session.perturbed(target, frames=True)
    when = e.tube().flatten(1).sum(1).reshape(-1, 1, 1)
    return perturbed.curves(cell_ranking(when, perturbed.grid))


def _sanity(session: Session, explanations: Sequence[Heatmap]) -> list[float | None]:
    """Correlation of each map with the same method's map of the same layer, in the model with shuffled weights.

    None where the copies can't be explained, or have no weights.
    """
    wanted: list[_Wanted] = [((id(e.ran), e.record.run.get("layer")), e.explained) for e in explanations]
    ran = {key: _fixed(e.ran, key[1]) for (key, _), e in zip(wanted, explanations, strict=True) if e.ran}
    targets = [t for t in dict.fromkeys(t for _, t in wanted) if t is not None]

    def explain(twin: nn.Module) -> list[Tensor | None]:
        lend_layers(session.model.module, twin, {layer for (_, layer), _ in wanted if layer})
        maps: dict[_Wanted, Attribution] = {}
        try:
            found = explain_all(list(ran.values()), twin, session.x, targets)
            maps |= {(k, t): a for k, row in zip(ran, found, strict=True) for t, a in zip(targets, row, strict=True)}
        except PellucidError:  # a method that fails on the copy must not take the others with it
            for key, target in dict.fromkeys(wanted):
                with suppress(PellucidError):
                    maps[key, target] = ran[key].explain(twin, session.x, [target])[0]
        return [maps[key].values.cpu() if key in maps else None for key in wanted]

    return sanity_correlations(explain, session.model.module, session.x, [e.attribution for e in explanations])


def _fixed(ran: Method, layer: str | None) -> Method:
    """The method's quick version, at the layer that it explained rather than at one that it would choose anew."""
    quick = ran.quick()
    chose = layer is not None and getattr(quick, "layer", "") is None
    return dataclasses.replace(quick, layer=layer) if chose else quick  # type: ignore[type-var]
