"""The verb: who competes, what goes wrong, what is kept, what is said."""

import json
import math

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import pellucid as pl
from helpers.evaluations import Formula
from helpers.nets import chained, noise
from pellucid.cli import app
from pellucid.errors import MediaError, MethodError, StorageError
from pellucid.evaluation.banks.redrawn import cascade
from pellucid.evaluation.metrics import METRICS, as_metrics
from pellucid.evaluation.sanity import randomised_copy

FAST = "srg,sensitivity-n,entropy"


@pytest.fixture(scope="module")
def model():
    """Trusts the upper left quarter alone."""

    def answer(x):
        quarter = x[..., : x.shape[-2] // 2, : x.shape[-1] // 2]
        return torch.cat([quarter.mean((1, 2, 3))[:, None] * 20, torch.zeros(len(x), 1)], 1)

    return pl.wrap(Formula(answer).eval(), scores="softmax")


X = noise(3, 3, 12, 12).abs()


def truth(module, x, target):
    heat = torch.zeros(len(x), 12, 12)
    heat[:, :6, :6] = x.mean(1)[:, :6, :6]
    return heat


def outside(module, x, target):
    return 1 - truth(module, x, target)


@pytest.fixture(scope="module")
def board(model):
    masks = [(0, 0, 6, 6)] * 3
    return pl.evaluate(model, X, {"truth": truth, "outside": outside}, "default", masks=masks)


# --- the order


def test_the_truth_is_on_top_and_its_opposite_below_the_anchors(board):
    order = [s.name for s in board.rank().standings]
    assert order[0] == "truth"
    assert order.index("outside") > order.index("random order")
    assert board.recommended.name == "truth"
    for name in ("srg", "faithfulness-correlation", "relevance-mass", "mask-auc", "insertion"):
        assert board["truth", name].mean() > board["random order", name].mean(), name


def test_a_table_has_its_intervals_and_prices(board):
    row = board.table()[0]
    assert row["method"] == "truth"
    assert row["srg +-"] >= 0
    assert row["forwards"] == 0
    assert len(list(board.rows())) == len(board.methods) * (len(board.metrics) + 3) * 3


def test_what_is_not_sure_is_said_to_be_so(board):
    said = " ".join(board.lines())
    assert "truth has the best mean rank" in said
    assert "is not sure" in said, "three inputs prove nothing"


def test_drawn_on_a_sheet_and_a_page(board):
    assert board.png()[:4] == b"\x89PNG"
    page = board.html()
    assert page.count("<img") >= 3 * 4
    assert "What could not be measured" not in page
    assert "<script" not in page


def test_a_method_that_never_looks_at_the_model_is_ruled_out():
    net = pl.wrap(chained(4, 6), scores="softmax")
    found = pl.evaluate(net, noise(2, 3, 12, 12), {"blind": lambda m, x, t: x.abs().sum(1)}, f"{FAST},mprt-last")
    assert "does not change when the weights are shuffled" in " ".join(found.lines())
    assert found.recommended.name == ""


# --- what goes wrong


def test_a_rival_that_fails_takes_nobody_with_it(model):
    def breaks(module, x, target):
        if float(x.mean()) == float(X[1].mean()):
            raise RuntimeError("no luck")
        return x.mean(1)

    def not_a_number(module, x, target):
        return torch.full((len(x), 12, 12), math.nan)

    def wrong_size(module, x, target):
        return torch.zeros(5)

    rivals = {"breaks": breaks, "nan": not_a_number, "size": wrong_size, "fine": truth}
    found = pl.evaluate(model, X, rivals, FAST)
    assert np.isfinite(found["fine", "srg"]).all()
    assert np.isfinite(found["breaks", "srg"]).tolist() == [True, False, True]
    assert not np.isfinite(found.scores[1:3]).any()
    said = {method: text for method, _, text in found.said}
    assert "no luck" in said["breaks"]
    assert "NaN" in said["nan"]
    assert "(5,)" in said["size"]


def test_masks_that_do_not_fit_and_masks_that_are_empty(model):
    masks = [np.ones((12, 12), bool), np.zeros((12, 12), bool), np.ones((5, 5), bool)]
    found = pl.evaluate(model, X, {"truth": truth}, "pointing-game,relevance-mass", masks=masks)
    assert found["truth", "pointing-game"].tolist()[:2] == [1, 0]
    assert math.isnan(found["truth", "pointing-game"][2])
    said = " ".join(found.notes)
    assert "is empty, so it is never hit" in said
    assert "draw it on the original" in said


def test_localisation_needs_the_truth(model):
    with pytest.raises(MethodError, match="give masks"):
        pl.evaluate(model, X, {"truth": truth}, "pointing-game")
    with pytest.raises(MediaError, match="masks for at least"):
        pl.verbs.truths.TruthSource([(0, 0, 1, 1)]).of("b", 1, (4, 4))


def test_inputs_that_cannot_be_read_are_left_out(model, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"nothing")
    found = pl.evaluate(model, [str(tmp_path / "broken.png"), X[0]], {"truth": truth}, "entropy")
    assert found.samples == ["tensor"]
    assert "is left out" in found.notes[0]


def test_inputs_of_one_name_are_told_apart(model):
    found = pl.evaluate(model, X, {"truth": truth}, "entropy")
    assert found.samples == ["tensor", "tensor 2", "tensor 3"]
    assert {row["sample"] for row in found.rows()} == set(found.samples)


def test_a_model_at_chance_is_told():
    flat = pl.wrap(Formula(lambda x: x.flatten(1)[:, :4] * 1e-3).eval(), scores="softmax")
    found = pl.evaluate(flat, X, {"truth": truth}, "entropy")
    assert any("hardly surer than a guess" in note for note in found.notes)


def test_a_shared_baseline_is_told(model):
    hiding = {"occlusion": pl.heatmaps.get_method("occlusion", baseline="zero")}
    found = pl.evaluate(model, X[:1], hiding, "srg", baseline="zero")
    assert any("same baseline, zero" in note for note in found.notes)
    other = pl.evaluate(model, X[:1], hiding, "srg")
    assert not any("same baseline" in note for note in other.notes)


def test_names_that_are_none(model):
    with pytest.raises(MethodError, match="no metric 'srgg'"):
        as_metrics("srgg")
    with pytest.raises(MethodError, match="anchor"):
        pl.evaluate(model, X, {"edges": truth}, FAST)
    with pytest.raises(MethodError, match="draws no maps"):
        pl.evaluate(model, X, {"five": 5}, FAST)


def test_the_model_is_as_it_was():
    net = chained(4, 6).train()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    pl.evaluate(
        pl.wrap(net),
        noise(1, 3, 10, 10),
        {"mine": lambda m, x, t: x.sum(1), "saliency": None},
        f"{FAST},mprt,lipschitz",
    )
    assert net.training
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())


# --- what is kept


def test_a_run_goes_on_where_it_stopped_and_one_more_method_costs_its_own(tmp_path):
    asked = []

    def answer(x):
        asked.append(len(x))
        return torch.cat([x.mean((1, 2, 3))[:, None], -x.mean((1, 2, 3))[:, None]], 1)

    model = pl.wrap(Formula(answer).eval(), scores="softmax")
    metrics = "sensitivity-n,single-deletion"
    how = {"keep": tmp_path}
    first = pl.evaluate(model, X, "occlusion", metrics, **how)
    spent = sum(asked)
    asked.clear()
    again = pl.evaluate(model, X, "occlusion", metrics, **how)
    assert np.array_equal(first.scores, again.scores, equal_nan=True)
    assert sum(asked) <= 2 * len(X), "only what opens the inputs"
    asked.clear()
    more = pl.evaluate(model, X, "occlusion,lime", metrics, **how)
    assert np.array_equal(more.scores[0], first.scores[0])
    lime = int(more.price[1, 0].sum())
    assert sum(asked) - lime <= 8 * len(X) < spent
    broken = next(tmp_path.glob("*.npz"))
    broken.write_bytes(b"not a file")
    assert np.array_equal(pl.evaluate(model, X, "occlusion", metrics, **how).scores, first.scores)


def test_saved_read_and_verified(tmp_path):
    net = pl.wrap(chained(4, 6), scores="softmax")
    x = noise(2, 3, 12, 12)
    made = pl.evaluate(net, x, "saliency,input-x-gradient", "srg,relevance-mass,entropy", masks=[(1, 1, 6, 7)] * 2)
    files = made.save(tmp_path)
    assert {f.suffix for f in files} == {".npz", ".json", ".parquet", ".html"}
    back = pl.read(files[0])
    assert np.array_equal(back.scores, made.scores)
    assert list(back.lines()) == list(made.lines())
    assert back.metrics == made.metrics
    assert pl.verify(files[0], model=net, inputs=x).status in ("same", "within tolerance")
    assert pl.verify(files[0], model=net, inputs=x + 1).status == "different"


def test_a_rival_of_ones_own_is_not_verified(model, board, tmp_path):
    files = board.save(tmp_path)
    with pytest.raises(StorageError, match="evaluate again"):
        pl.verify(files[0], model=model, inputs=X)


def test_without_pyarrow_rows_are_comma_separated(board, tmp_path, monkeypatch):
    def gone(self):
        raise StorageError("no pyarrow")

    monkeypatch.setattr(type(board), "parquet", gone)
    (file,) = [f for f in board.save(tmp_path) if f.suffix == ".csv"]
    assert file.read_text().splitlines()[0] == "method,metric,sample,value,cost"


def test_rows_in_parquet(board):
    import io

    import pyarrow.parquet as pq

    table = pq.read_table(io.BytesIO(board.parquet()))
    assert table.column_names == ["method", "metric", "sample", "value", "cost"]
    rows = [r for r in table.to_pylist() if (r["method"], r["metric"]) == ("truth", "srg")]
    assert [r["value"] for r in rows] == board["truth", "srg"].tolist()
    assert {r["cost"] for r in rows} == {30}
    assert {r["cost"] for r in table.to_pylist() if r["metric"] == "sensitivity-n"} == {0}


# --- rivals of other libraries, and files


@pytest.fixture(scope="module")
def net():
    return chained(4, 6)


def test_objects_of_captum_draw_what_captum_draws(net):
    captum = pytest.importorskip("captum.attr")
    x = noise(2, 3, 12, 12)
    rivals = {
        "class": captum.Saliency,
        "object": captum.InputXGradient(net),
        "own": pl.heatmaps.get_method("input-x-gradient"),
    }
    found = pl.evaluate(pl.wrap(net, scores="softmax"), x, rivals, f"{FAST},mprt-last")
    ours = pl.evaluate(pl.wrap(net, scores="softmax"), x, "input-x-gradient", FAST)
    assert np.isfinite(found["class", "mprt-last"]).all()
    assert not np.isfinite(found["object", "mprt-last"]).any()
    assert any("explains no other model" in text for _, _, text in found.said)
    assert found["object", "srg"] == pytest.approx(ours["input-x-gradient", "srg"], abs=1e-5)


def test_objects_of_grad_cam_torchcam_and_zennit_compete(net):
    torchcam = pytest.importorskip("torchcam.methods")
    grad_cam = pytest.importorskip("pytorch_grad_cam")
    layer = net[2]
    rivals = {
        "theirs": grad_cam.GradCAM(net, [layer]),
        "torchcam": torchcam.GradCAM(net, "2"),
        "own": pl.heatmaps.get_method("grad-cam", layer="2"),
    }
    zennit = pytest.importorskip("zennit.attribution")
    rivals["zennit"] = zennit.Gradient(net)
    found = pl.evaluate(pl.wrap(net, scores="softmax"), noise(1, 3, 12, 12), rivals, FAST)
    rivals["torchcam"].remove_hooks()
    assert found.said == []
    assert np.isfinite(found.scores[:4]).all()


def test_maps_in_a_folder(model, tmp_path):
    for n in range(2):
        np.save(tmp_path / f"in{n}.npy", truth(None, X[n : n + 1], 0)[0].numpy())
    np.save(tmp_path / "in2.npy", np.zeros((3, 3)))
    from PIL import Image

    folder = tmp_path / "pictures"
    folder.mkdir()
    for n in range(3):
        Image.fromarray((X[n].permute(1, 2, 0).clamp(0, 1) * 255).byte().numpy()).save(folder / f"in{n}.png")
    look = pl.Preprocess(input_size=(12, 12), mean=(0.0,) * 3, std=(1.0,) * 3, crop=False, resize=12)
    placed = pl.wrap(model.module, transform=look, scores="softmax")
    found = pl.evaluate(placed, str(folder), {"files": tmp_path, "live": truth}, "srg,lipschitz")
    assert np.isfinite(found["files", "srg"]).tolist() == [True, True, False]
    assert not np.isfinite(found["files", "lipschitz"]).any()
    assert any("(3, 3)" in text for _, _, text in found.said)


# --- clips


def test_clips_are_evaluated_whole():
    net = nn.Sequential(
        nn.Conv3d(3, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(4, 3)
    )
    torch.manual_seed(0)
    frame = pl.Preprocess(input_size=(10, 10), mean=(0,) * 3, std=(1,) * 3)
    clips = pl.wrap(net.eval(), transform=pl.ClipPreprocess(spatial=frame, plan=pl.Plan("uniform", 4)))
    found = pl.evaluate(clips, noise(1, 3, 4, 10, 10), "saliency", f"{FAST},road,irof,shift-equivariance")
    assert np.isfinite(found.scores[0]).all()
    assert found.html()


# --- weights of all kinds are shuffled


def test_attention_and_position_weights_are_shuffled_too():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.place = nn.Parameter(noise(1, 4, 8))
            self.token = nn.Parameter(noise(1, 1, 8, seed=1))
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
            self.head = nn.Linear(8, 3)

        def forward(self, x):
            x = torch.cat([self.token.expand(len(x), -1, -1), x.flatten(2).transpose(1, 2) + self.place], 1)
            return self.head(self.attention(x, x, x)[0][:, 0])

    net = Net().eval()
    *_, last = cascade(net, 4)
    assert {"place", "token", "attention.in_proj_weight", "head.weight"} <= last
    first = next(iter(cascade(net, 4)))
    assert "head.weight" in first
    assert "place" not in first
    twin = randomised_copy(net, noise(1, 8, 2, 2), 0, last)
    for name in ("place", "token", "attention.in_proj_weight"):
        before, after = net.get_parameter(name), twin.get_parameter(name)
        assert not torch.equal(before, after)
        assert torch.equal(before.flatten().sort().values, after.flatten().sort().values)
    some = randomised_copy(net, noise(1, 8, 2, 2), 0, first)
    assert torch.equal(some.place, net.place)


# --- the command


def test_the_command_prints_a_table_and_one_document(tmp_path):
    asked = ["sample:cat", "--methods", "eigen-cam", "--metrics", "entropy,sparseness", "--out", str(tmp_path)]
    run = CliRunner().invoke(app, ["evaluate", *asked, "--json"])
    assert run.exit_code == 0, run.output
    told = json.loads(run.stdout)
    assert told["results"][0]["inputs"] == ["cat"]
    assert {row["method"] for row in told["results"][0]["table"]} == {"eigen-cam", "random order", "edges"}
    run = CliRunner().invoke(app, ["evaluate", *asked])  # found again in the folder's work
    assert "mean rank" in run.stdout
    assert "page: " in run.stdout


def test_every_metric_has_a_bank_that_is_planned_for():
    from pellucid.evaluation.schedule import Schedule

    schedule = Schedule.of([m for m in METRICS.values() if not m.clips], [])
    assert len(schedule.banks) <= 28
    in_time = Schedule.of([m for m in METRICS.values() if m.clips], [])
    assert len(in_time.banks) <= 6
    assert "passes an input" in schedule.line((32, 32), samples=3)
