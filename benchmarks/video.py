"""The suite for clips: maps beside the bare forward pass, frames left out, tokens dropped, frames read from a file."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.memory import growth
from benchmarks.report import Row, Section, at_least, at_most, single
from benchmarks.timing import Spread, paired
from pellucid.engine.masks import SegmentMasks, grid_labels
from pellucid.engine.perturb import Scorer
from pellucid.heatmaps import GradCAM
from pellucid.importance import get_estimator, measure
from pellucid.importance.frames import Frames
from pellucid.media import Plan, open_clip
from pellucid.models.suite_nets import VideoViT
from pellucid.scoring.job import prepare
from pellucid.scoring.masked import freeze, score_of
from pellucid.scoring.tokens import token_scorer

TITLE = "Clips"


@dataclass(frozen=True)
class Size:
    """How much work to spend.

    Attributes:
        repeats: rounds.
        networks: for Grad-CAM.
        side: of the frames of the CNN-LSTM.
        masks: tubes hidden in turn.
        seconds: of the file to sample from.
    """

    repeats: int
    networks: tuple[str, ...]
    side: int
    masks: int
    seconds: int


FULL = Size(repeats=5, networks=("r3d_18", "mvit_v1_b"), side=112, masks=128, seconds=60)
QUICK = Size(repeats=2, networks=("r3d_18",), side=64, masks=48, seconds=20)


class FramesThenLSTM(nn.Module):
    """A ResNet-18 for each frame, an LSTM over its features: the usual CNN-LSTM."""

    def __init__(self) -> None:
        super().__init__()
        from torchvision.models import resnet18

        self.frames = resnet18(weights=None)
        self.frames.fc = nn.Identity()  # type: ignore[assignment]
        self.memory, self.head = nn.LSTM(512, 256, batch_first=True), nn.Linear(256, 101)

    def forward(self, x: Tensor) -> Tensor:
        features = self.frames(x.transpose(1, 2).flatten(0, 1)).unflatten(0, (len(x), -1))
        scores: Tensor = self.head(self.memory(features)[0][:, -1])
        return scores


def _seeded(build: Callable[[], nn.Module], device: str) -> nn.Module:
    torch.manual_seed(0)
    return build().eval().to(device)


def _clip(*shape: int, device: str) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0)).to(device)


def _cams(size: Size, device: str) -> Iterator[Section]:
    from torchvision.models import get_model

    rows = []
    for name in size.networks:
        side = 224 if name.startswith("mvit") else 112
        net = _seeded(partial(get_model, name, weights=None), device)
        x = _clip(1, 3, 16, side, side, device=device)

        def bare(net: nn.Module = net, x: Tensor = x) -> None:
            with torch.no_grad():
                net(x)

        ours = partial(GradCAM().attribute, net, x, 0)
        found = paired({"ours": ours, "bare": bare}, size.repeats)
        rows.append(
            Row(
                f"grad-cam : bare forward, {name}",
                found.ratio("ours", "bare"),
                limit=at_most(1.15),
                cpu=found.ratio("ours", "bare", "cpu"),
            )
        )
    about = "One clip of 16 frames, random weights, the layer found by itself (once, before the clock runs)."
    yield Section("Grad-CAM on clips", about, rows)


def _frames(size: Size, device: str) -> Iterator[Section]:
    net, x = _seeded(FramesThenLSTM, device), _clip(1, 3, 32, size.side, size.side, device=device)
    job = prepare(net, x, [0])
    by = get_estimator("ablation")
    rows = []
    for baseline in ("freeze", "blur"):
        fast, slow = Frames(baseline=baseline), Frames(baseline=baseline, fast=False)  # type: ignore[arg-type]
        values = [measure(p, by, job, pairs=False).values for p in (fast, slow)]
        gap = float((values[0] - values[1]).abs().max() / values[1].abs().max())
        found = paired(
            {
                "fast": partial(measure, fast, by, job, pairs=False),
                "naive": partial(measure, slow, by, job, pairs=False),
            },
            max(1, size.repeats // 2),
            warmup=0,
        )
        rows += [
            Row(
                f"clip by clip : frame ablation ({baseline})",
                found.ratio("naive", "fast"),
                limit=at_least(5),
                cpu=found.ratio("naive", "fast", "cpu"),
            ),
            single(f"largest difference of the values ({baseline})", gap, "", at_most(1e-3), "relative to the largest"),
        ]
    about = (
        f"ResNet-18 for each of 32 frames of {size.side} x {size.side}, an LSTM of 256 units, random weights; every "
        "frame left out once. The proof that the network reads frame by frame is inside the time."
    )
    yield Section("Frames of a CNN-LSTM", about, rows)


def _tokens(size: Size, device: str) -> Iterator[Section]:
    net = _seeded(lambda: VideoViT(101, 16, 112, width=192, depth=6, heads=3, tubelet=(2, 16, 16)), device)
    x = _clip(1, 3, 16, 112, 112, device=device)
    job = prepare(net, x, [0])
    targets = freeze(job)
    labels = grid_labels(job.space, (4, 7, 7)).to(device)
    generator = torch.Generator().manual_seed(0)
    order = torch.rand(size.masks, 196, generator=generator).argsort(1)
    kept = torch.zeros(size.masks, 196).scatter_(1, order[:, :98], 1.0)
    tokens = kept.reshape(-1, 4, 1, 49).expand(-1, -1, 2, -1).reshape(size.masks, -1) > 0

    def dropped() -> Tensor:
        scorer = token_scorer(net, x, score_of(targets))
        assert scorer is not None
        with scorer:
            return scorer(tokens)

    def masked() -> Tensor:
        with Scorer(net, x, torch.zeros_like(x), score_of(targets)) as scorer:
            return scorer(SegmentMasks(kept.to(device), labels))

    found = paired({"dropped": dropped, "masked": masked}, size.repeats)
    row = Row(
        "masking : dropping tokens",
        found.ratio("masked", "dropped"),
        limit=at_least(1.7),
        cpu=found.ratio("masked", "dropped", "cpu"),
    )
    about = (
        f"A video ViT of 392 tubelets (width 192, 6 blocks), {size.masks} masks that each hide half of 196 tubes. The "
        "proof that dropping is sound is inside the time."
    )
    yield Section("Tubes of a video transformer", about, [row])


def write_film(path: Path, seconds: int, size: tuple[int, int] = (720, 1280), rate: int = 25) -> None:
    """A film of moving noise in H.264 with a key frame every two seconds."""
    import av

    generator = np.random.default_rng(0)
    texture = generator.integers(0, 256, (size[0], 2 * size[1], 3)).astype(np.uint8)
    texture = texture.reshape(size[0] // 16, 16, -1, 16, 3)[:, :1, :, :1].repeat(16, 1).repeat(16, 3)
    texture = texture.reshape(size[0], 2 * size[1], 3)
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=rate, options={"preset": "ultrafast", "g": str(2 * rate)})
        stream.width, stream.height, stream.pix_fmt = size[1], size[0], "yuv420p"
        for i in range(seconds * rate):
            shift = 2 * i % size[1]
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(texture[:, shift : shift + size[1]]), "rgb24")
            frame.pts, frame.time_base = i, Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def decode_whole(path: Path) -> int:
    """Every frame by PyAV, as fast as it goes."""
    import av

    with av.open(str(path)) as container:
        container.streams.video[0].thread_type = "AUTO"
        return sum(1 for _ in container.decode(video=0))


def _sampling(size: Size, device: str) -> Iterator[Section]:
    with tempfile.TemporaryDirectory() as folder:
        long, short = Path(folder) / "long.mp4", Path(folder) / "short.mp4"
        write_film(long, size.seconds)
        write_film(short, size.seconds // 4)

        def sampled(path: Path = long) -> object:
            return open_clip(path).clip(Plan("uniform", 16))

        found = paired({"ours": sampled, "whole": lambda: decode_whole(long)}, max(2, size.repeats // 2))
        needs = [growth(partial(sampled, path), "cpu") for path in (short, long)]
    rows = [
        Row(
            "16 frames sampled : PyAV decoding the whole",
            found.ratio("ours", "whole"),
            limit=at_most(1),
            cpu=found.ratio("ours", "whole", "cpu"),
        ),
        Row("16 frames sampled", found.seconds("ours"), " s", cpu=found.seconds("ours", "cpu")),
        Row(
            "memory, long film : short film",
            Spread.of([max(needs[1], 1) / max(needs[0], 1)]),
            limit=at_most(1.5),
            note=f"{needs[0] / 2**20:.0f} and {needs[1] / 2**20:.0f} MiB; the 16 frames take 42",
        ),
    ]
    about = f"H.264, 1280 x 720, 25 frames a second, a key frame every 2 s; {size.seconds} s, and a quarter of that."
    yield Section("Frames from a file", about, rows)


SECTIONS: dict[str, Callable[[Size, str], Iterator[Section]]] = {
    "cams": _cams,
    "frames": _frames,
    "tokens": _tokens,
    "sampling": _sampling,
}
