"""Trained video models on real clips, where they lie beside the checkout; skipped elsewhere."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import pellucid as pl
from pellucid.media import FramesInMemory, read_clip
from pellucid.models.preprocess import Preprocess

DATA = Path(__file__).parents[2] / "shared" / "data"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (DATA / "code" / "zoo.py").is_file(), reason="needs ../shared/data"),
]


@pytest.fixture(scope="module")
def zoo():
    sys.path.insert(0, str(DATA / "code"))
    try:
        import zoo

        yield zoo
    finally:
        sys.path.remove(str(DATA / "code"))


@pytest.fixture(scope="module")
def i3d(zoo):
    pytest.importorskip("av")
    net, about = zoo.i3d()
    frame = Preprocess(input_size=(224, 224), resize=(224, 224), mean=(0.5,) * 3, std=(0.5,) * 3)
    return pl.wrap(net, transform=frame, labels=about["labels"], frames="dense:16", name="I3D")


def test_i3d_looks_at_the_baby_rather_than_at_the_caption(i3d):
    e = pl.explain(i3d, DATA / "videos" / "action" / "crawling_baby.mp4", "grad-cam", layer="Mixed_5c")
    assert e.prediction[0].label == "crawling baby"
    where = e.heatmap()[0].clamp(min=0).sum(0)
    caption, baby = where[:24, :130].sum() / where.sum(), where[40:200, 90:230].sum() / where.sum()
    assert baby > 0.35  # its box is 29 % of the frame
    assert caption < 0.041  # and the caption's 4.1 %


def test_the_caption_does_not_make_the_answer(i3d):
    clip = read_clip(DATA / "videos" / "action" / "crawling_baby.mp4", "dense:16")

    def probability(frames):
        x, _ = i3d.preprocess(FramesInMemory(frames, clip.times).clip(i3d.preprocess.plan))
        index = i3d.labels.index("crawling baby")
        with torch.no_grad():
            return float(i3d.module(x[None]).softmax(1)[0, index])

    hidden = clip.frames.copy()
    hidden[:, :24, :130] = 0
    alone = np.zeros_like(clip.frames)
    alone[:, :24, :130] = clip.frames[:, :24, :130]
    assert probability(clip.frames) > 0.9
    assert probability(hidden) > 0.9
    assert probability(alone) < 0.1


def test_a_cnn_lstm_is_explained_over_time_and_space(zoo):
    pytest.importorskip("av")
    net, about = zoo.lrcn_ucf4()

    def transform(frames):
        small = torch.nn.functional.interpolate(frames.float() / 255, (64, 64), mode="bilinear")
        return small.flip(1).movedim(0, 1)  # it was trained on BGR

    model = pl.wrap(net, transform=transform, labels=about["labels"], frames="uniform:20", layout="BTCHW", name="LRCN")
    clip = DATA / "videos" / "action" / "k400_10fps_playing_guitar-wFWTW0q57ms_140_10.mp4"
    e = pl.explain(model, clip, "grad-cam", "PlayingGuitar")
    assert e.prediction[0].label == "PlayingGuitar"
    assert e.layer.endswith("frames in the batch, 64 channels)")
    assert len(e.tube()) == 20
    assert e.tube().any()


def test_a_network_for_fights_is_explained(zoo):
    pytest.importorskip("av")
    net, about = zoo.mc3_fight()
    frame = Preprocess(input_size=(112, 112), resize=(128, 171), mean=about["mean"], std=about["std"])
    plan = pl.Plan("uniform", 16)
    preprocess = pl.ClipPreprocess(spatial=frame, plan=plan, antialias=False)
    model = pl.wrap(net, transform=preprocess, labels=about["labels"], name="fights")
    e = pl.explain(model, DATA / "videos" / "fight" / "fight_fi100.mp4", "grad-cam")
    assert e.prediction[0].label == "fight"
    assert e.tube().shape == (16, 7, 7)
    assert e.tube().any()
