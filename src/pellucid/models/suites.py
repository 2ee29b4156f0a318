"""Tiny video networks trained on generated clips, on the spot: models whose evidence is known.

A network is trained once, in some seconds to a minute, and kept in the user's folder for caches under a name that
hangs on all that made it: the code that draws the clips, the code of the network, the recipe. Fresh clips test it; one
that has not learned its task is refused rather than explained.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from pellucid.errors import ModelError
from pellucid.keep.home import cache_folder
from pellucid.media import generated
from pellucid.models import suite_nets
from pellucid.models.suite_nets import NETS
from pellucid.progress import task

_TEST_SEED, _TESTED = 1_000_000, 256
_EVERY = 25  # steps between tests


@dataclass(frozen=True)
class Recipe:
    """How a network learns a suite: at most so many steps, fewer if it knows it before.

    Attributes:
        suite, net: what learns what.
        steps: most steps of AdamW with one cycle of the rate.
        rate: its largest rate.
        batch: clips a step, never the same ones again.
        seed: of the weights and of the clips.
        sure: mean probability of the right class on fresh clips at which it may stop: maps of a network that is barely
            right show its doubts.
        enough: share of fresh clips it must get right.
    """

    suite: str
    net: str
    steps: int = 600
    rate: float = 0.005
    batch: int = 32
    seed: int = 0
    sure: float = 0.97
    enough: float = 0.98


RECIPES: dict[str, tuple[Recipe, ...]] = {
    "motion": (Recipe("motion", "cnn3d", rate=0.01), Recipe("motion", "vit", rate=0.003, steps=1000)),
    "order": (Recipe("order", "cnn-lstm", rate=0.01), Recipe("order", "cnn-gru", rate=0.01)),
    "match": (Recipe("match", "cnn-lstm", steps=1200, rate=0.01), Recipe("match", "cnn-gru", steps=1200, rate=0.01)),
    "flash": (Recipe("flash", "per-frame"), Recipe("flash", "cnn3d", rate=0.01), Recipe("flash", "vit", rate=0.003)),
    "static": (
        Recipe("static", "per-frame"),
        Recipe("static", "cnn3d", rate=0.01),
        Recipe("static", "vit", rate=0.003),
    ),
}
"""Suite -> recipes, its own network first."""


def names() -> list[str]:
    """The models: `SUITE` means its first network, `SUITE:NET` another."""
    return [name for suite, recipes in RECIPES.items() for name in (suite, *(f"{suite}:{r.net}" for r in recipes))]


def recipe(name: str) -> Recipe:
    """The recipe of `SUITE` or `SUITE:NET`.

    Raises:
        MediaError: there is no such suite.
        ModelError: no such network for it.
    """
    name, _, net = name.removeprefix(generated.PREFIX).partition(":")
    generated.suite(name)
    found = next((r for r in RECIPES[name] if r.net == (net or r.net)), None)
    if found is None:
        kinds = ", ".join(f"{generated.PREFIX}{name}:{r.net}" for r in RECIPES[name])
        raise ModelError(f"No network {net!r} learns the suite {name!r}: there are {kinds}.")
    return found


def trained(name: str) -> nn.Module:
    """The network `SUITE` or `SUITE:NET` in evaluation mode: from the cache, or trained now."""
    chosen = recipe(name)
    file = _file(chosen)
    if file is not None and file.is_file():
        with suppress(OSError, RuntimeError, ValueError, SafetensorError):  # a damaged file is trained again
            return _built(chosen, load_file(file))
    net = train(chosen)
    if file is not None:
        _store(net, file)
    return net


def _built(recipe: Recipe, weights: dict[str, Tensor]) -> nn.Module:
    with torch.random.fork_rng(devices=[]):  # a network draws its first weights
        net = NETS[recipe.net](len(generated.suite(recipe.suite).labels))
    net.load_state_dict(weights)
    return net.eval()


def train(recipe: Recipe) -> nn.Module:
    """Train a network by its recipe; the caller's random state is left as it was.

    Raises:
        ModelError: it has not learned the suite.
    """
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(recipe.seed)
        net = NETS[recipe.net](len(generated.suite(recipe.suite).labels))
        optimiser = torch.optim.AdamW(net.parameters(), lr=recipe.rate, weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, recipe.rate, total_steps=recipe.steps, pct_start=0.2)
        test = generated.draw(recipe.suite, _TESTED, _TEST_SEED)
        right = 0.0
        with task(f"training {recipe.suite}:{recipe.net}, once, under a minute", recipe.steps) as advance:
            for step in range(recipe.steps):
                drawn = generated.draw(recipe.suite, recipe.batch, recipe.seed * recipe.steps + step)
                loss = cross_entropy(net(drawn.clips), drawn.labels)
                optimiser.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                nn.utils.clip_grad_norm_(net.parameters(), 1.0)
                optimiser.step()
                schedule.step()
                advance(1)
                if (step + 1) % _EVERY == 0:
                    right, sure = tested(net, test.clips, test.labels)
                    if sure >= recipe.sure and right >= recipe.enough:
                        break
    if right < recipe.enough:
        raise ModelError(
            f"The network {recipe.net} learned only {right:.0%} of the suite {recipe.suite!r} here, so its evidence is "
            "not known: use another network of that suite."
        )
    return net.eval().requires_grad_(True)


def tested(net: nn.Module, clips: Tensor, labels: Tensor) -> tuple[float, float]:
    """Share of clips that a network of ours gets right, and the mean probability it gives the right class."""
    training = net.training
    net.eval()
    with torch.no_grad():
        scores = torch.cat([net(part) for part in clips.split(64)])  # type: ignore[no-untyped-call]
    net.train(training)
    given = scores.softmax(1).gather(1, labels[:, None])
    return float((scores.argmax(1) == labels).float().mean()), float(given.mean())


def _file(recipe: Recipe) -> Path | None:
    """Where the weights of a recipe are kept, by the hash of all that makes them; None where caching is off."""
    home = cache_folder("suites")
    if home is None:
        return None
    digest = hashlib.sha256(json.dumps(asdict(recipe), sort_keys=True).encode())
    for source in (generated.__file__, suite_nets.__file__, __file__):
        digest.update(Path(source).read_bytes())
    digest.update(torch.__version__.encode())
    return home / f"{recipe.suite}-{recipe.net}-{digest.hexdigest()[:16]}.safetensors"


def _store(net: nn.Module, file: Path) -> None:
    """Written under a name of its own, then renamed; a folder that can't be written to only costs time next time."""
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=file.parent, suffix=".part")
        os.close(handle)
        try:
            save_file({k: v.contiguous() for k, v in net.state_dict().items()}, temporary)
            os.replace(temporary, file)
        finally:
            Path(temporary).unlink(missing_ok=True)
