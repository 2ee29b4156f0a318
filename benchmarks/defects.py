"""What Quantus 0.6 answers where the right answer is known, and what is answered here; see `tests/evaluation`.

Quantus is no dependency: `pip install --no-deps --target FOLDER quantus==0.6.0`, and FOLDER on PYTHONPATH.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.report import Section, single

_RNG = np.random.default_rng(0)
_X = _RNG.random((20, 3, 16, 16), dtype=np.float32)
_GREY = _X[:, :1]
_QUIET = {"disable_warnings": True, "display_progressbar": False}


def _net(channels: int = 3) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * 256, 4)).eval()


def _asked(metric: Any, net: nn.Module, x: Any, a: Any = None, **more: Any) -> Any:
    y = net(torch.as_tensor(x)).argmax(1).numpy()
    return metric(model=net, x_batch=x, y_batch=y, a_batch=_RNG.random(x[:, :1].shape) if a is None else a, **more)


def _monotonicity(q: Any) -> str:
    found = _asked(q.Monotonicity(features_in_step=16, **_QUIET), _net(1), _GREY[:10])
    return f"monotone in {sum(map(bool, found))} of 10 random orders of a signed sum"


def _road(q: Any) -> str:
    return str(_asked(q.ROAD(**_QUIET), _net(), _X[:4]))


def _first_batch(q: Any) -> str:
    net = _net(1)
    y = net(torch.as_tensor(_GREY)).argmax(1).numpy()
    y[10:] = (y[10:] + 1) % 4  # whoever reads the first batch alone finds other shares than whoever reads both
    a = _RNG.random(_GREY.shape)
    given = {"model": net, "x_batch": _GREY, "y_batch": y, "a_batch": a}
    one, two = (q.ROAD(percentages=[1], **_QUIET)(**given, batch_size=n) for n in (20, 10))
    return f"in one batch {one}, in two {two}"


def _empty_mask(q: Any) -> str:
    found = _asked(q.PointingGame(**_QUIET), _net(), _X[:2], s_batch=np.zeros((2, 1, 16, 16), bool))
    return f"an empty mask is hit: {found}"


def _localisation(q: Any) -> str:
    mask = np.zeros((4, 1, 16, 16), bool)
    mask[:, :, 4:12, 4:12] = True
    a = _RNG.random((4, 1, 16, 16))
    metric = q.AttributionLocalisation(weighted=True, **_QUIET)
    one = _asked(metric, _net(), _X[:4], a, s_batch=mask, batch_size=4)
    two = _asked(metric, _net(), _X[:4], a, s_batch=mask, batch_size=1)
    return f"the first of four in one batch {one[0]:.3g}, alone {two[0]:.3g}"


def _infidelity(q: Any) -> str:
    return str(_asked(q.Infidelity(perturb_patch_sizes=[5], n_perturb_samples=2, **_QUIET), _net(), _X[:2]))


def _sensitivity_n(q: Any) -> str:
    net = _net(1)
    weight = net[1].weight.detach().numpy()  # type: ignore[union-attr, index]
    y = net(torch.as_tensor(_GREY)).argmax(1).numpy()
    exact = (_GREY.reshape(20, -1) * weight[y]).reshape(_GREY.shape)
    metric = q.SensitivityN(features_in_step=16, abs=False, normalise=False, perturb_baseline="black", **_QUIET)
    found = _asked(metric, net, _GREY, exact, batch_size=20)
    return f"{np.ravel(found)[0]:.3f} for the exact map of a linear model, 1 by its definition"


def _irof(q: Any) -> str:
    return str(_asked(q.IROF(**_QUIET), _net(), _X[:2]))


def _completeness(q: Any) -> str:
    net = nn.Sequential(nn.Flatten(), nn.Linear(256, 4, bias=False)).eval()
    y = net(torch.as_tensor(_GREY[:10])).argmax(1).numpy()
    exact = (_GREY[:10].reshape(10, -1) * net[1].weight.detach().numpy()[y]).reshape(10, 1, 16, 16)
    metric = q.Completeness(abs=False, normalise=False, perturb_baseline="black", **_QUIET)
    found = _asked(metric, net, _GREY[:10], exact)
    return f"complete in {sum(map(bool, found))} of 10 exact maps of a linear model"


def _mprt(q: Any) -> str:
    net = nn.Sequential(nn.Flatten(), nn.Linear(256, 8), nn.ReLU(), nn.Linear(8, 4)).eval()

    def follows(model: Any, inputs: Any, targets: Any, **_: Any) -> Any:
        return np.asarray(inputs) if model is net else _RNG.random(np.shape(inputs))

    metric = q.MPRT(return_average_correlation=True, **_QUIET)
    found = _asked(metric, net, _GREY[:4], _GREY[:4], explain_func=follows)
    return f"{np.mean(found):.2f} where maps of shuffled weights are drawn at random, 0 but for chance"


def _attention(q: Any) -> str:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention, self.head = nn.MultiheadAttention(8, 2, batch_first=True), nn.Linear(8, 4)

        def forward(self, x: Any) -> Any:
            tokens = x.reshape(len(x), -1, 8)
            return self.head(self.attention(tokens, tokens, tokens)[0].mean(1))

    net = Net().eval()
    before = net.attention.in_proj_weight.detach().clone()
    *_, (_, last) = q.helpers.model.pytorch_model.PyTorchModel(net, channel_first=True).get_random_layer_generator()
    return f"attention's weights at the last stage as they were: {torch.equal(last.attention.in_proj_weight, before)}"


def _invariance(q: Any) -> str:
    net = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 196, 4)).eval()

    def slope(model: Any, inputs: Any, targets: Any, **_: Any) -> Any:
        return np.ones((len(inputs), 1, 16, 16))

    return str(_asked(q.InputInvariance(**_QUIET), net, _X[:2], explain_func=slope))


def _numpy(q: Any) -> str:
    metric = q.PixelFlipping(features_in_step=64, return_auc_per_sample=True, **_QUIET)
    return f"{np.ravel(_asked(metric, _net(1), _GREY[:1]))}"


def _area(q: Any) -> str:
    found = []
    for step in (16, 64):
        metric = q.PixelFlipping(features_in_step=step, return_auc_per_sample=False, **_QUIET)
        found.append(len(np.ravel(_asked(metric, _net(1), _GREY[:1]))))
    return f"{found[0]} values in 16 steps, {found[1]} in 4: the untouched input has none"


def _batch_mates(q: Any) -> str:
    a = np.ones((2, 1, 4, 4))
    alone = q.normalise_func.normalise_by_max(a[:1].copy()).max()
    beside = q.normalise_func.normalise_by_max(np.concatenate([a[:1], 100 * a[1:]])).max(axis=(1, 2, 3))[0]
    return f"the greatest value of a map is {alone:g} alone, {beside:g} beside a larger map"


def _bins(q: Any) -> str:
    return f"{q.n_bins_func.sturges_formula(_X)} bins for 256 values, 9 by the formula"


def _swallowed(q: Any) -> str:
    metrics = {"fails": q.IROF(**_QUIET)}
    calls = {"a": {}, "b": {}}
    y = np.zeros(2, int)
    found = q.evaluate(metrics, {"random": _RNG.random((2, 1, 16, 16))}, _net(), _X[:2], y, call_kwargs=calls)
    return f"a metric that fails: {found}"


def _silenced(q: Any) -> str:
    said = inspect.getsource(q.metrics.base).count("GITHUB_ACTIONS")
    return f"asks in {said} places whether it runs on GitHub, and warns and waits there alone"


SHOWN: dict[str, Callable[[Any], str]] = {
    "1 monotonicity": _monotonicity,
    "2 ROAD of colour pictures": _road,
    "3 ROAD of several batches": _first_batch,
    "4 pointing game, empty mask": _empty_mask,
    "5 attribution localisation": _localisation,
    "6 infidelity, patches that do not divide the input": _infidelity,
    "7 sensitivity-n": _sensitivity_n,
    "8 IROF of colour pictures": _irof,
    "9 completeness": _completeness,
    "10 MPRT": _mprt,
    "11 MPRT of attention": _attention,
    "12 input invariance, no bias": _invariance,
    "13 areas under today's NumPy": _numpy,
    "14 areas and steps": _area,
    "15 normalised over the batch": _batch_mates,
    "16 bins": _bins,
    "17 a failure": _swallowed,
    "18 warnings": _silenced,
}


def shown() -> Iterator[Section]:
    """A row for each of its errors; what is right is held by tests."""
    section = Section("What Quantus 0.6 answers", "Where the right answer is known; here each is a test that passes.")
    try:
        import quantus
    except ImportError:
        section.skipped = "quantus is not installed"
        yield section
        return
    for what, show in SHOWN.items():
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            try:
                said = show(quantus)
            except Exception as error:
                said = f"{type(error).__name__}: {error}"
        section.rows.append(single(what, float("nan"), note=said.splitlines()[0][:160] if said else said))
    yield section
