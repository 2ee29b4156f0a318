"""The randomised-weights sanity test (Adebayo et al. 2018, arXiv:1810.03292).

A map that looks the same when the network's weights are shuffled shows the picture, not the model.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from pellucid.engine import unwrap
from pellucid.progress import task

SEEDS = (0, 1)


def randomised_copy(module: nn.Module, inputs: Tensor, seed: int) -> nn.Module:
    """A copy of `module` with each weight tensor's values shuffled; the model itself is not touched.

    Normalisation layers keep their scale, and their running statistics are measured again on `inputs`: a network that
    merely explodes or dies would make the test pass for the wrong reason.
    """
    module = unwrap(module)
    # Activations that a model keeps as attributes hang on a graph, and such tensors refuse to be copied.
    kept = {id(v): v.detach().clone() for m in module.modules() for v in vars(m).values() if _hangs_on_a_graph(v)}
    twin = copy.deepcopy(module, kept).requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    for parameter in twin.parameters():
        if parameter.ndim > 1:
            order = torch.randperm(parameter.numel(), generator=generator).to(parameter.device)
            parameter.copy_(parameter.flatten()[order].reshape(parameter.shape))
    norms = [m for m in twin.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats]
    twin.eval()
    if norms:
        momenta = [m.momentum for m in norms]
        for m in norms:
            m.train()
            m.momentum = 1.0
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            # Two samples, since layers of one cell cannot be normalised over one.
            twin(torch.cat([inputs, inputs.flip(-1)]))
        for m, momentum in zip(norms, momenta, strict=True):
            m.momentum = momentum
        twin.eval()
    return twin


def _hangs_on_a_graph(value: object) -> bool:
    return isinstance(value, Tensor) and not value.is_leaf


def spearman(a: Tensor, b: Tensor) -> float:
    """Rank correlation of two maps, flattened; 0 where one of them is flat or not finite. Ties share a rank."""
    if not (torch.isfinite(a).all() and torch.isfinite(b).all()):
        return 0.0
    ranks = [_ranks(t.flatten().double()) for t in (a, b)]
    centred = [r - r.mean() for r in ranks]
    norm = centred[0].norm() * centred[1].norm()
    return float((centred[0] @ centred[1]) / norm) if norm > 0 else 0.0


def _ranks(values: Tensor) -> Tensor:
    _, inverse, counts = torch.unique(values, return_inverse=True, return_counts=True)
    mean_rank: Tensor = counts.cumsum(0) - (counts - 1) / 2
    return mean_rank.double()[inverse]


def sanity_correlations(
    explain: Callable[[nn.Module], Sequence[Tensor]], module: nn.Module, inputs: Tensor, maps: Sequence[Tensor]
) -> list[float]:
    """Mean rank correlation of each of `maps` with its counterpart in `explain(model with shuffled weights)`."""
    found = []
    with task("randomised weights", len(SEEDS)) as advance:
        for seed in SEEDS:
            random = explain(randomised_copy(module, inputs, seed))
            found.append([spearman(r, m) for r, m in zip(random, maps, strict=True)])
            advance(1)
    return [sum(column) / len(column) for column in zip(*found, strict=True)]
