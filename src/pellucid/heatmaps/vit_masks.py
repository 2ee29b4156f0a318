"""Masks that a vision transformer draws itself: its channels, seen as maps over the patches, grouped by likeness.

Attention says where a transformer mixes; what its patch tokens hold says what it sees. Channels that agree on the
patches make one mask, and the score under each mask says what that group of patches is worth.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from pellucid.engine import Capture, Cost
from pellucid.engine.masks import GridMasks, SegmentMasks
from pellucid.errors import MethodError
from pellucid.heatmaps.base import Attribution, method
from pellucid.heatmaps.masked_cam import channel_masks
from pellucid.heatmaps.perturbation import PerturbationMethod
from pellucid.models.layouts import Layout
from pellucid.scoring.job import Job
from pellucid.scoring.masked import freeze, masked, score_of
from pellucid.scoring.tokens import Entry, entries, token_scorer

_STREAM = 0x70CE  # sets the clusters' random numbers apart from those of a random baseline with the same seed
_ROUNDS = 20  # of k-means: the masks are the largest values of its centres, which settle long before it does


def transformer_blocks(module: nn.Module, inputs: Tensor, name: str) -> tuple[list[str], Entry]:
    """Paths of a transformer's blocks, in order, and which patches their tokens stand for.

    Raises:
        MethodError: the model has no blocks that are given one token for each patch.
    """
    found = entries(module, inputs)
    if not found:
        raise MethodError(
            f"{name} needs a plain vision transformer, one token for each patch in all blocks, and this model is none: "
            "use score-cam, rise or hsic, which need no tokens."
        )
    path = found[0].block.rpartition(".")[0]
    return [f"{path}.{n}" if path else n for n, _ in module.get_submodule(path).named_children()], found[0]


def read_tokens(job: Job, layers: list[str], layout: Layout, cost: Cost) -> Tensor:
    """What the layers hold for each patch, channels side by side: `(N, layers x channels, *grid)`; one forward."""
    with Capture(job.module, layers, stop_early=True) as capture:
        capture.forward(job.inputs)
        cost.forwards += len(job.inputs)
        return torch.cat([layout.to_map(capture.activations[n].detach().float()) for n in layers], 1)


def k_means(points: Tensor, clusters: int, generator: torch.Generator) -> Tensor:
    """Centres `(clusters, d)` of points `(n, d)`, from random points; fewer points than clusters are centres all."""
    if len(points) <= clusters:
        return points
    centres = points[torch.randperm(len(points), generator=generator)[:clusters]]
    for _ in range(_ROUNDS):
        nearest = torch.cdist(points, centres).argmin(1)
        sums = torch.zeros_like(centres).index_add_(0, nearest, points)
        counts = nearest.bincount(minlength=clusters)[:, None]
        moved = torch.where(counts > 0, sums / counts.clamp(min=1), centres)
        if torch.equal(moved, centres):
            break
        centres = moved
    return centres


def complete_linkage(distances: Tensor, threshold: float) -> Tensor:
    """Cluster numbers `(n,)`: the closest two clusters merge while their farthest members are within the threshold.

    Args:
        distances: `(n, n)`, symmetric.
        threshold: largest distance within a cluster.
    """
    d = distances.clone().fill_diagonal_(math.inf)
    number = torch.arange(len(d))
    while len(d) > 1:
        i, j = divmod(int(d.argmin()), len(d))
        if d[i, j] > threshold:
            break
        d[i] = d[:, i] = torch.maximum(d[i], d[j])
        d[j] = d[:, j] = math.inf
        d[i, i] = math.inf
        number[number == j] = i
    labels: Tensor = torch.unique(number, return_inverse=True)[1]
    return labels


@method(
    "vit-cx",
    family="perturbation",
    needs="outputs, tokens",
    cost="2 forwards a cluster of channels (some 10 to 200)",
    paper="Xie et al. 2023, arXiv:2211.03064",
)
@dataclass(frozen=True, kw_only=True)
class ViTCX(PerturbationMethod):
    """`sum_m (s_m - mean s) M_m / (K sum_m M_m)`, `s_m = f(x M_m + z (1 - M_m)) - f(x + z (1 - M_m))`.

    The map is `(N, *space)`. The masks are the channels that enter the last block, drawn at the size of the input and
    scaled to 0..1; channels closer than `threshold` are averaged. A mask's worth is the score where only it shows,
    corrected for what the noise `z` alone does to the picture; each place takes the mean over the masks that show it,
    by their strength. Masks cover most places more or less, so what all of them are worth is in every place of that
    mean: it is taken off, and zero is as good as any place. `centred=False` gives the paper's values, which count from
    the score of noise alone: `f(x) - f(z)` is added to each `s_m`, and no mean is taken off.

    Args:
        threshold: largest cosine distance within a cluster (complete linkage).
        noise: standard deviation of what shows where the mask is 0, in the model's units.
        centred: False for values that count from noise alone.
        seed: of the noise.
    """

    threshold: float = 0.1
    noise: float = 0.1
    centred: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.threshold >= 0 or not self.noise >= 0:
            raise MethodError("The threshold and the noise of vit-cx are 0 or more.")

    def quick(self) -> ViTCX:
        """Fewer, larger clusters."""
        return replace(self, threshold=max(0.2, self.threshold))

    def perturb(self, job: Job) -> list[Attribution]:
        """All masks of all inputs for all targets, twice: on the noise, and on the noisy picture."""
        cost = Cost()
        names, entry = transformer_blocks(job.module, job.inputs, self.name)
        if entry.span(job.space):
            raise MethodError(
                f"vit-cx draws its masks over the whole input, and of {job.space} the patches see {entry.covered}: "
                "give inputs that patches fill, or use tis or attention-relevance."
            )
        maps = read_tokens(job, [_norm_before(job.module, names[-1])], entry.layout, cost)
        masks = [self._clustered(channel_masks(m, job.space)) for m in maps]
        sizes = torch.tensor([len(m) for m in masks], device=job.inputs.device)
        most = int(sizes.max())
        # Shorter lists are filled up with the empty mask, which weighs nothing.
        full = [GridMasks(torch.cat([m, m.new_zeros(most - len(m), *m.shape[1:])]), job.space, "linear") for m in masks]
        noise = torch.randn(job.inputs.shape[1:], generator=torch.Generator().manual_seed(self.seed))
        z = self.noise * noise.to(job.inputs)[None].expand_as(job.inputs)
        with masked(job, z) as scorer:
            alone, gain = scorer(full, label=self.name), scorer.plain() - scorer.blank()
            cost.add(scorer.cost)
        with masked(job, job.inputs + z) as scorer:
            noisy = scorer(full, label=self.name)
            cost.add(scorer.cost)
        worth = alone - noisy  # (N, M, T)
        if self.centred:
            real = torch.arange(most, device=sizes.device) < sizes[:, None]
            worth = worth - (worth * real[..., None]).sum(1, keepdim=True) / sizes[:, None, None]
        else:
            worth = worth + gain[:, None]
        maps = torch.stack([m.accumulate(w) for m, w in zip(full, worth, strict=True)])
        cover = torch.stack([m.accumulate(torch.ones(most, 1, device=sizes.device)) for m in full]).clamp(min=1e-6)
        values = maps / cover / sizes.reshape(-1, *[1] * (maps.ndim - 1))
        facts = {"masks": sizes.double().tolist()}
        return [Attribution(values[:, t].float(), facts=dict(facts), cost=cost) for t in range(len(job.targets))]

    def _clustered(self, masks: GridMasks) -> Tensor:
        """Means `(K, *grid)` of like channels."""
        flat = nn.functional.normalize(masks.values.flatten(1).cpu(), dim=1)
        labels = complete_linkage(1 - flat @ flat.T, self.threshold).to(masks.values.device)
        sums = torch.zeros(int(labels.max()) + 1, *masks.values.shape[1:], device=labels.device)
        sums.index_add_(0, labels, masks.values)
        return sums / labels.bincount().reshape(-1, *[1] * (sums.ndim - 1))


def _norm_before(module: nn.Module, block: str) -> str:
    """The first layer norm inside a block, which holds the tokens that enter it on one scale."""
    inside = module.get_submodule(block).named_modules()
    norm = next((n for n, m in inside if isinstance(m, nn.LayerNorm)), None)
    if norm is None:
        raise MethodError(f"vit-cx reads the layer norm that opens a block, and block {block!r} has none: use tis.")
    return f"{block}.{norm}"


@method(
    "tis",
    family="perturbation",
    needs="outputs, tokens",
    cost="1 forward with half the tokens a mask (1024)",
    paper="Englebert et al. 2023, arXiv:2308.04766, sec. 3",
)
@dataclass(frozen=True, kw_only=True)
class TIS(PerturbationMethod):
    """Mean score of the masks that keep a patch, less the mean of all masks: `(N, *grid)`, signed.

    Each mask keeps the patches where a group of channels, out of all blocks, is largest; k-means finds the groups. The
    hidden patches are left out of the transformer's input, so that nothing stands in for them. Where dropping tokens
    is not proven sound, patches are covered by the baseline instead, and a note says so.

    Args:
        masks: how many groups of channels.
        kept: share of the patches that each mask keeps.
        baseline: what covers patches that cannot be dropped: a name such as `zero`, or a tensor.
        seed: of the grouping and of a random baseline.
    """

    masks: int = 1024
    kept: float = 0.5
    baseline: str | Tensor = "zero"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.masks < 2 or not 0 < self.kept < 1:
            raise MethodError("tis needs at least 2 masks, and a share of kept patches between 0 and 1.")

    def quick(self) -> TIS:
        """At most 128 masks."""
        return replace(self, masks=min(128, self.masks))

    def perturb(self, job: Job) -> list[Attribution]:
        """All masks of all inputs for all targets."""
        cost, notes = Cost(), []
        names, entry = transformer_blocks(job.module, job.inputs, self.name)
        kept = torch.stack([self._masks(tokens) for tokens in read_tokens(job, names, entry.layout, cost)])
        targets = freeze(job)
        cost.forwards += len(job.inputs)
        dropping = token_scorer(job.module, job.inputs, score_of(targets), targets=len(targets), watch=job.watch)
        if dropping is not None:
            with dropping:
                scores = dropping(kept, label=self.name)
                cost.forwards += dropping.cost.forwards
        else:
            notes.append("Tokens of this model cannot be dropped soundly, so the baseline covered the patches.")
            labels = entry.labels(job.space).to(job.inputs.device)
            with masked(job, self.baseline, self.seed) as scorer:
                scores = scorer([SegmentMasks(k.float(), labels) for k in kept], label=self.name)
                cost.add(scorer.cost)
        shown = kept.to(scores)  # (N, M, cells)
        times = shown.sum(1)[..., None]
        values = shown.transpose(1, 2) @ scores / times.clamp(min=1) - scores.mean(1, keepdim=True)
        values = torch.where(times > 0, values, 0.0).float()  # (N, cells, T)
        if (times == 0).any():
            notes.append("Some patches are kept by no mask and stay at zero: raise masks.")
        maps = [values[..., t].reshape(-1, *entry.layout.grid) for t in range(len(targets))]
        return [Attribution(m, notes=list(notes), cost=cost, span=entry.span(job.space)) for m in maps]

    def _masks(self, tokens: Tensor) -> Tensor:
        """Which cells each group of channels `(C, *grid)` keeps, `(M, cells)`; at least one."""
        channels = tokens.flatten(1).cpu()
        centres = k_means(channels, self.masks, torch.Generator().manual_seed(self.seed + _STREAM))
        top = centres.topk(max(1, round(self.kept * channels.shape[1])), dim=1).indices
        return torch.zeros(centres.shape, dtype=torch.bool).scatter_(1, top, True).to(tokens.device)
