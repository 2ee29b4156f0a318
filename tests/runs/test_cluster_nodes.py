"""A simulated cluster of several nodes, one of which is killed at work."""

import os
import threading
import time

import pytest

from runs.test_batch import HELPERS, all_rows, job, names, pictures
from runs.test_cluster import ROOT


@pytest.mark.slow
def test_a_node_that_is_killed_at_work_loses_nothing(tmp_path, monkeypatch):
    ray = pytest.importorskip("ray", reason="the extra ray is not installed")
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT / "src"), HELPERS]))
    folder, out = pictures(tmp_path / "in", 96), tmp_path / "out"
    ray.shutdown()
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    doomed = cluster.add_node(num_cpus=2)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="error")
    killed = []

    def strike():
        while not killed and not over.is_set():
            time.sleep(0.02)
            if shards := list(out.glob("shards/part-*.parquet")):
                killed.append(len(shards))
                cluster.remove_node(doomed, allow_graceful=False)

    over = threading.Event()
    striking = threading.Thread(target=strike)
    striking.start()
    try:
        found = job(out, folder, entry="slow").run(2, engine="ray", block=8)
    finally:
        over.set()
        striking.join()
        ray.shutdown()
        cluster.shutdown()
    assert found.complete
    assert killed
    assert killed[0] < 12  # it was at work
    rows = all_rows(out)
    assert names(rows) == [f"{k:04d}.png" for k in range(96)]
    assert len({row["id"] for row in rows}) == 96
