"""The row function and the manifest, in this process: rows are what the verbs say, one by one."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

import pellucid as pl
from helpers.batch_entry import small
from pellucid.errors import MediaError, PellucidError
from pellucid.evaluation import sanity
from pellucid.heatmaps import get_method
from pellucid.importance import get_estimator, get_players
from pellucid.keep.shards import table_of
from pellucid.models.targets import as_target
from pellucid.results.rows import COLUMNS, artefact_of
from pellucid.runs.manifest import Item, Manifest
from pellucid.runs.work import Work, WorkOrder
from pellucid.verbs.explain import ExplainRequest
from pellucid.verbs.importance_request import ImportanceRequest
from pellucid.verbs.kinds import REQUESTS

ENTRY = {"entry": "helpers.batch_entry:small"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Pictures of two sizes in a folder and a sub-folder, and one that is none."""
    home, draw = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for k in range(11):
        place = home if k < 8 else home / "inner"
        place.mkdir(exist_ok=True)
        Image.fromarray(draw.integers(0, 256, (40, 30 + 10 * (k % 2), 3)).astype(np.uint8)).save(place / f"{k}.png")
    (home / "broken.png").write_bytes(b"no picture")
    return home


def asked(*methods, targets=("top",), **how):
    return [
        ExplainRequest(method=get_method(m) if isinstance(m, str) else m, target=as_target(t), **how)
        for t in targets
        for m in methods
    ]


def work(requests, precision="float16"):
    return Work(WorkOrder(ENTRY, tuple(r.as_dict() for r in requests), precision))


def stored(row):
    """A row after it went through Parquet."""
    (again,) = table_of([row], COLUMNS).to_pylist()
    return again


@pytest.mark.parametrize("precision", ["float16", "float32"])
def test_rows_are_what_explain_says_of_each_picture(folder, precision):
    methods, targets = ("grad-cam", "input-x-gradient"), ("top", "two")
    items = list(Manifest.of([folder]))
    rows = [stored(row) for row in work(asked(*methods, targets=targets), precision).rows(items)]
    assert len(rows) == 12 * 4
    assert len({row["id"] for row in rows}) == len(rows)
    model = small()
    for row in rows:
        if row["status"] == "failed":
            assert "broken.png can't be used as a picture" in row["error"]
            continue
        result = REQUESTS[row["format"]].opened(artefact_of(row))
        (told,) = {t for t in targets if row["request"] in {r.key for r in asked(*methods, targets=(t,))}}
        alone = pl.explain(model, row["input"], row["method"], told)
        assert result.prediction[0].label == alone.prediction[0].label == row["label"]
        assert row["target"] == alone.target
        assert result.geometry.as_dict() == alone.geometry.as_dict()
        assert result.record.input == alone.record.input
        scale = float(alone.attribution.abs().max())
        near = 2e-6 if precision == "float32" else 2.0**-11 + 2e-6  # batches round the last bits otherwise
        torch.testing.assert_close(result.attribution, alone.attribution, atol=near * scale, rtol=near)


def test_evaluate_measures(folder):
    (row,) = (stored(r) for r in work(asked("grad-cam", check=True)).rows([Item(str(folder / "0.png"))]))
    alone = pl.explain(small(), folder / "0.png", check=True)
    assert row["verdict"] == alone.quality.verdict
    assert row["insertion"] == pytest.approx(alone.quality.insertion.auc, abs=1e-5)
    assert REQUESTS[row["format"]].opened(artefact_of(row)).quality.verdict == row["verdict"]
    (plain,) = (stored(r) for r in work(asked("grad-cam")).rows([Item(str(folder / "0.png"))]))
    assert row["forwards"] == plain["forwards"] + alone.session.passes, (
        "the pictures that its check has masked count too"
    )
    assert alone.session.passes > 100


def test_weights_are_shuffled_once_for_the_pictures_of_a_shard(folder, monkeypatch):
    orders, real = [], sanity._in_random_order
    monkeypatch.setattr(sanity, "_in_random_order", lambda *given: orders.append(given) or real(*given))
    work(asked("grad-cam", check=True)).rows([Item(str(folder / f"{k}.png")) for k in range(3)])
    assert len(orders) == len(sanity.SEEDS)


def test_importance_has_rows_too(folder):
    request = ImportanceRequest(
        players=get_players("patches", count=4), estimator=get_estimator("ablation"), target=as_target("top")
    )
    (row,) = (stored(r) for r in work([request]).rows([Item(str(folder / "0.png"))]))
    alone = pl.importance(small(), folder / "0.png", get_players("patches", count=4), "ablation")
    assert row["players"] == alone.names
    np.testing.assert_allclose(row["values"], alone.shares[0].values, rtol=1e-5, atol=1e-6)
    again = REQUESTS[row["format"]].opened(artefact_of(row))
    np.testing.assert_allclose(again.shares[0].values, alone.shares[0].values, rtol=1e-5, atol=1e-6)


def test_an_id_hangs_on_the_content_the_model_and_the_request(folder, tmp_path):
    copy = tmp_path / "0.png"
    copy.write_bytes((folder / "0.png").read_bytes())
    first = work(asked("grad-cam"))
    ids = {first.rows([Item(str(copy))])[0]["id"] for _ in range(2)}
    assert len(ids) == 1
    ids.add(first.rows([Item(str(folder / "0.png"))])[0]["id"])  # the same bytes elsewhere are another input
    ids.add(work(asked("input-x-gradient")).rows([Item(str(copy))])[0]["id"])
    ids.add(work(asked("grad-cam", seed=1)).rows([Item(str(copy))])[0]["id"])
    with torch.no_grad():
        first.model.module.head.bias.add_(1)
    first.weights = first.model.fingerprint()
    ids.add(first.rows([Item(str(copy))])[0]["id"])
    copy.write_bytes((folder / "1.png").read_bytes())
    ids.add(work(asked("grad-cam")).rows([Item(str(copy))])[0]["id"])
    assert len(ids) == 6


def test_what_fails_is_a_row_and_takes_nobody_along(folder, monkeypatch):
    doing = work(asked("grad-cam", "occlusion"))
    items = [Item(str(folder / f"{k}.png")) for k in (0, 2, 4)]
    from pellucid.runs import work as room

    real = room.explain_batch

    def fails(model, ready, methods, *rest, **known):
        if any(item.source["source"].endswith("2.png") for item in ready) and any(
            m.name == "occlusion" for m in methods
        ):
            raise PellucidError("It does not like this one.")
        return real(model, ready, methods, *rest, **known)

    monkeypatch.setattr(room, "explain_batch", fails)
    rows = doing.rows(items)
    failed = [row for row in rows if row["status"] != "done"]
    assert len(rows) == 6
    assert [(row["name"], row["method"], row["error"]) for row in failed] == [
        ("2.png", "occlusion", "It does not like this one.")
    ]


def test_memory_that_runs_out_halves_the_batch(folder, monkeypatch):
    from pellucid.runs import work as room

    doing, real, sizes = work(asked("grad-cam")), room.explain_batch, []

    def tight(model, ready, *rest, **known):
        sizes.append(len(ready))
        if len(ready) > 2:
            raise torch.OutOfMemoryError("too many")
        return real(model, ready, *rest, **known)

    monkeypatch.setattr(room, "explain_batch", tight)
    rows = doing.rows([Item(str(folder / f"{k}.png")) for k in (0, 2, 4, 6, 0, 2, 4, 6)])
    assert {row["status"] for row in rows} == {"done"}
    assert len(rows) == 8
    assert doing.size == 2


def test_a_batch_is_filled_across_pictures(folder, monkeypatch):
    from pellucid.runs import work as room

    sizes, real = [], room.explain_batch
    monkeypatch.setattr(
        room, "explain_batch", lambda m, given, *how, **known: sizes.append(len(given)) or real(m, given, *how, **known)
    )
    doing = work(asked("grad-cam"))
    doing.size = 4
    doing.rows([Item(str(folder / f"{k}.png")) for k in range(8)])  # of two sizes, which the model sees as one
    assert sizes == [4, 4]


def manifest(path, rows):
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".csv":
        path.write_text("\n".join([",".join(rows[0]), *(",".join(map(str, r.values())) for r in rows)]))
    else:
        images = [{"file_name": r["path"], "id": r["id"]} for r in rows]
        path.write_text(json.dumps({"images": images, "annotations": []}))
    return path


@pytest.mark.parametrize("ending", ["parquet", "csv", "json"])
def test_manifests_name_inputs_beside_them(folder, ending):
    path = manifest(folder / f"list.{ending}", [{"path": f"{k}.png", "id": f"n{k}"} for k in range(3)])
    read = Manifest.of([path])
    assert [(i.source, i.given_id) for i in read] == [(str(folder / f"{k}.png"), f"n{k}") for k in range(3)]
    assert read.count() == 3
    assert Manifest.of([path], limit=2).count() == 2
    assert len(list(Manifest.of([path], limit=2))) == 2
    path.unlink()


def test_a_manifest_may_hold_targets(folder):
    path = manifest(folder / "list.csv", [{"path": "0.png", "target": "one"}, {"path": "2.png", "target": "two>one"}])
    rows = work(asked("grad-cam")).rows(list(Manifest.of([path])))
    assert [row["target"] for row in rows] == ["one", "two rather than one"]
    path.unlink()


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"where": "0.png"}], "has no column of paths: call it 'path'; it has where"),
        ([{"path": "0.png", "id": 1}, {"path": "2.png", "id": 1}], "has an id twice"),
    ],
)
@pytest.mark.parametrize("ending", ["parquet", "csv"])
def test_manifests_that_make_no_sense(folder, rows, said, ending):
    path = manifest(folder / f"list.{ending}", rows)
    with pytest.raises(MediaError, match=said):
        Manifest.of([path])
    path.unlink()


def test_rows_without_a_path_and_of_another_medium_fail(folder, tmp_path):
    path = manifest(tmp_path / "list.csv", [{"path": "", "id": 1}, {"path": str(folder / "0.png"), "id": 2}])
    rows = work(asked("grad-cam")).rows(list(Manifest.of([path])))
    assert [(row["status"], row["error"]) for row in rows] == [
        ("failed", "The manifest names no input in this row."),
        ("done", None),
    ]


def test_inputs_come_from_an_object_store(folder, tmp_path):
    import fsspec

    with fsspec.open("memory://bucket/0.png", "wb") as file:
        file.write((folder / "0.png").read_bytes())
    path = manifest(tmp_path / "list.csv", [{"path": "memory://bucket/0.png"}, {"path": "memory://bucket/none.png"}])
    gone, there = work(asked("grad-cam")).rows(list(Manifest.of([path])))
    (here,) = work(asked("grad-cam")).rows([Item(str(folder / "0.png"))])
    assert (there["status"], there["input"]) == ("done", "memory://bucket/0.png")
    assert there["map"] == here["map"]
    assert there["sha256"] == here["sha256"]
    assert json.loads(there["meta"])["record"]["input"]["source"] == "memory://bucket/0.png"
    assert (gone["status"], gone["input"]) == ("failed", "memory://bucket/none.png")
    assert "memory://bucket/none.png can't be fetched" in gone["error"]
