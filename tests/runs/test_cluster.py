"""The cluster engine: the same rows as on one machine, on Ray where it is installed."""

import os
import socket
from pathlib import Path

import pytest

from pellucid.errors import ModelError, StorageError
from pellucid.runs.cluster import Cluster, _join
from pellucid.runs.work import WorkOrder
from runs.test_batch import HELPERS, all_rows, job, pictures

ROOT = Path(__file__).parents[2]


def test_without_ray_it_is_said_what_to_install(tmp_path, monkeypatch):
    import builtins

    real = builtins.__import__

    def without(name, *rest):
        if name.partition(".")[0] == "ray":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(StorageError, match=r'needs Ray: pip install "pellucid\[ray\]"'):
        job(tmp_path / "out", pictures(tmp_path / "in", 2)).run(engine="ray")


class Ray:
    """What is asked of Ray when a cluster is joined."""

    def __init__(self, error=None):
        self.given, self.error = {}, error

    def init(self, **given):
        self.given = given
        if self.error:
            raise self.error


def test_the_address_of_a_killed_cluster_is_not_waited_for(tmp_path, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    (tmp_path / "ray").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        (tmp_path / "ray" / "ray_current_cluster").write_text(address)
        _join(alive := Ray())
    _join(dead := Ray())  # nobody listens any more
    (tmp_path / "ray" / "ray_current_cluster").write_text("no address")
    _join(odd := Ray())
    assert ["address" in ray.given for ray in (alive, dead, odd)] == [False, True, True]
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(StorageError, match=f"No Ray cluster answers at {address}: `ray start` it"):
        _join(Ray(ConnectionError("none")))


@pytest.fixture(scope="module")
def cluster():
    ray = pytest.importorskip("ray", reason="the extra ray is not installed")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT / "src"), HELPERS])
    ray.init(num_cpus=4, log_to_driver=False, include_dashboard=False)
    yield ray
    ray.shutdown()


@pytest.mark.slow
def test_rows_are_those_of_the_local_engine(cluster, tmp_path):
    folder = pictures(tmp_path / "in", 60)
    (folder / "broken.png").write_bytes(b"no picture")
    far = job(tmp_path / "ray", folder).run(2, engine="ray", block=16)
    near = job(tmp_path / "local", folder).run()
    assert (far.done, far.failed, far.complete) == (near.done, near.failed, near.complete) == (60, 1, True)
    assert {row["id"] for row in all_rows(tmp_path / "ray")} == {row["id"] for row in all_rows(tmp_path / "local")}
    assert job(tmp_path / "ray", folder).run(2, engine="ray").fresh == 0


@pytest.mark.slow
def test_what_one_engine_began_the_other_ends(cluster, tmp_path):
    folder = pictures(tmp_path / "in", 30)
    job(tmp_path / "out", folder).run()
    pictures(tmp_path / "in", 50)  # the same, and more
    found = job(tmp_path / "out", folder).run(2, engine="ray", block=16)
    assert found.complete
    rows = all_rows(tmp_path / "out")
    assert len(rows) == len({row["input"] for row in rows}) == 50


@pytest.mark.slow
def test_a_model_that_cannot_be_built_is_said_in_one_sentence(cluster, tmp_path):
    with pytest.raises(ModelError, match="nothing"):
        job(tmp_path / "out", pictures(tmp_path / "in", 2), entry="nothing").run(engine="ray")


@pytest.mark.parametrize(
    ("model", "asked", "resources", "share"),
    [
        ({"name": "n"}, {}, {"CPU": 16}, {"num_cpus": 0.75}),
        ({"name": "n"}, {}, {"CPU": 2}, {"num_cpus": 0.5}),  # one CPU of two is left for reading
        ({"name": "n"}, {}, {"CPU": 1}, {"num_cpus": 0.25}),
        ({"name": "n"}, {}, {"CPU": 16, "GPU": 2}, {"num_gpus": 1.0, "num_cpus": 0}),
        ({"name": "n"}, {}, {"CPU": 16, "GPU": 1}, {"num_cpus": 0.75}),  # not one for each actor
        ({"name": "n", "device": "cpu"}, {}, {"CPU": 16, "GPU": 2}, {"num_cpus": 0.75}),
        ({"name": "n", "device": "cuda"}, {}, {"CPU": 16}, {"num_gpus": 1.0, "num_cpus": 0}),
        ({"entry": "m:f"}, {}, {"CPU": 16, "GPU": 2}, {"num_cpus": 0.75}),  # which says itself where it is
        ({"entry": "m:f"}, {"gpus": 0.5}, {"CPU": 16, "GPU": 2}, {"num_gpus": 0.5, "num_cpus": 0}),
        ({"name": "n"}, {"cpus": 0.25}, {"CPU": 16}, {"num_cpus": 0.25}),
    ],
)
def test_what_an_actor_takes_of_a_cluster(tmp_path, model, asked, resources, share):
    cluster = Cluster(WorkOrder(model, ()), tmp_path, 2, 1, print, print, **asked)
    assert cluster.share(resources) == share
