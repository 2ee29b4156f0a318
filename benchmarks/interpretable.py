"""The suite for concepts and models a person can read: features, dictionaries, readable models."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from benchmarks.memory import growth
from benchmarks.report import Row, Section, at_most, single
from benchmarks.timing import Spread, paired, timed


@dataclass(frozen=True)
class Size:
    """How much work to spend."""

    pictures: int
    repeats: int
    tokens: int
    epochs: int
    rows: int


FULL = Size(pictures=128, repeats=5, tokens=50_000, epochs=3, rows=3000)
QUICK = Size(pictures=64, repeats=3, tokens=10_000, epochs=1, rows=1000)


def _pictures(count: int) -> object:
    """Real photos, each several times: what is measured does not depend on what they show."""
    from pellucid.media import read_folder

    names = ("astronaut", "cat", "coffee", "rocket", "motorcycle", "retina", "ihc", "camera")
    one = read_folder([f"sample:{name}" for name in names])
    return one.select(np.arange(count) % len(one))


def features(count: int, repeats: int, device: str) -> Section:
    """Extracting features of a folder, beside reading the same pictures and running the same model."""
    import pellucid as pl
    from pellucid.models.features import extract

    model, pictures = pl.load(device=device), _pictures(count)
    batch = model.batch

    def bare() -> None:
        with torch.no_grad():
            for start in range(0, count, batch):
                read = [model.preprocess(pictures.read(i))[0] for i in range(start, min(start + batch, count))]
                model.module(torch.stack(read).to(model.device)).cpu()

    times = paired(
        {
            "bare": bare,
            "pooled": lambda: extract(model, pictures, "bn2", cache=None),
            "places": lambda: extract(model, pictures, "bn2", pool=None, cache=None),
        },
        repeats,
    )
    few, many = (
        growth(lambda n=n: extract(model, _pictures(n), "bn2", cache=None), device) for n in (count // 4, count)
    )
    rows = [
        Row(
            f"{what} : bare forward",
            times.ratio(name, "bare"),
            limit=at_most(1.1),
            cpu=times.ratio(name, "bare", "cpu"),
        )
        for name, what in (("pooled", "features, pooled"), ("places", "features at each place"))
    ]
    rows += [
        Row(f"{name}, {count} pictures", times.seconds(name), " s", cpu=times.seconds(name, "cpu"))
        for name in ("bare", "pooled", "places")
    ]
    rows.append(single(f"peak memory, {count} : {count // 4} pictures", (many + 1) / (few + 1), limit=at_most(2)))
    about = (
        "The embedded EfficientNet-Lite0. The bare forward reads the same pictures, prepares them and runs the model "
        "on batches of the same size. The features come with the class scores and are written to a memory-mapped file."
    )
    return Section("Features of a folder", about, rows)


def factorisation(tokens: int) -> Section:
    """Factorising activations as large as 2,000 pictures at 7 x 7 places of 192 channels."""
    from pellucid.concepts import get_dictionary

    full = 2000 * 49
    generator = np.random.default_rng(0)
    D = np.abs(generator.standard_normal((40, 192)))
    U = generator.exponential(1, (full, 40)) * (generator.random((full, 40)) < 0.15)
    A = np.maximum(U @ D + 0.3 * generator.standard_normal((full, 192)), 0).astype(np.float32)
    rows = []
    for name, limit in (("nmf", 60.0), ("semi-nmf", None), ("pca", None), ("ica", None), ("kmeans", None)):
        chosen = A[np.sort(generator.choice(full, min(tokens, full), replace=False))]
        found = get_dictionary(name, count=25)
        wall, cpu = timed(lambda f=found, c=chosen: f.encode(A) if f.fit(c) else None)
        target = at_most(limit) if limit else None
        rows.append(Row(f"{name}, 25 concepts", Spread(wall, wall, wall, 1), " s", target, Spread(cpu, cpu, cpu, 1)))
    about = (
        f"Activations of 2,000 pictures at 7 x 7 places and 192 channels ({full} rows) with planted concepts: the fit "
        f"on {tokens} rows drawn from them and the codes of all."
    )
    return Section("Concepts by factorisation", about, rows)


def autoencoder(tokens: int, epochs: int) -> Section:
    """An epoch of a sparse autoencoder."""
    from pellucid.concepts import BatchTopKSAE, TopKSAE

    A = np.random.default_rng(0).standard_normal((tokens, 384)).astype(np.float32)
    rows = []
    for kind in (TopKSAE, BatchTopKSAE):
        net = kind(count=1024, active=32, epochs=epochs)
        _, cpu = timed(lambda n=net: n.fit(A))
        limit = at_most(6) if tokens == FULL.tokens else None
        rows.append(Row(f"{kind.name}, one epoch", Spread.of(net.seconds_), " s", limit, note=f"{cpu:.1f} s processor"))
    about = f"384 channels to 1024 concepts, 32 at a place, {tokens} rows, batches of 256."
    return Section("Sparse autoencoders", about, rows)


def readable(count: int) -> Section:
    """Readable models with their complexity chosen by cross-validation."""
    from sklearn.datasets import make_classification

    from pellucid.interpretable import Prototypes, Rules, SparseLinear, Tree
    from pellucid.interpretable.frontier import choose

    X, y = make_classification(
        count, 512, n_informative=40, n_redundant=100, n_classes=10, n_clusters_per_class=1, random_state=0
    )
    answers = np.eye(10)[y]
    rows = []
    for model in (Tree(6), SparseLinear(), Prototypes(3), Rules(12)):
        wall, cpu = timed(lambda m=model: m.fit(X, y))
        limit = at_most(30) if not isinstance(model, Rules) else None
        rows.append(Row(f"{model.kind}, fit", Spread(wall, wall, wall, 1), " s", limit, Spread(cpu, cpu, cpu, 1)))
        wall, cpu = timed(lambda m=model: choose(m, X, answers))
        rows.append(
            Row(f"{model.kind}, complexity chosen", Spread(wall, wall, wall, 1), " s", cpu=Spread(cpu, cpu, cpu, 1))
        )
    return Section("Readable models", f"{count} rows of 512 columns, 10 classes.", rows)


def _features(size: Size, device: str) -> Iterator[Section]:
    yield features(size.pictures, size.repeats, device)


def _factorisation(size: Size, device: str) -> Iterator[Section]:
    yield factorisation(size.tokens)


def _autoencoder(size: Size, device: str) -> Iterator[Section]:
    yield autoencoder(size.tokens, size.epochs)


def _readable(size: Size, device: str) -> Iterator[Section]:
    yield readable(size.rows)


TITLE = "Concepts and readable models"
SECTIONS: dict[str, Callable[[Size, str], Iterator[Section]]] = {
    "features": _features,
    "factorisation": _factorisation,
    "autoencoder": _autoencoder,
    "readable": _readable,
}
