"""Batches on Ray: simulated clusters, one of whose nodes is killed; and one machine, beside the local engine."""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pellucid as pl
from benchmarks import kills
from benchmarks.folder import photographs
from benchmarks.report import Row, Section, at_least, at_most, single
from benchmarks.workers import pace

_ROOT = Path(__file__).resolve().parent.parent
_PICTURES = 160
_BLOCK = 16


def installed() -> bool:
    """Whether Ray can be imported."""
    try:
        import ray.data  # noqa: F401
    except ImportError:
        return False
    return True


def absent() -> list[Section]:
    """What stands in the place of these tables where Ray is not installed."""
    return [Section("Batch: Ray", "", skipped="Ray is not installed")]


@contextmanager
def _nodes(count: int) -> Iterator[Callable[[], None]]:
    """A simulated cluster of nodes with two CPUs each; what is given kills the last of them."""
    import ray
    from ray.cluster_utils import Cluster

    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(_ROOT / "src"), str(_ROOT)])
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    last = None
    for _ in range(count - 1):
        last = cluster.add_node(num_cpus=2)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="error")
    try:
        yield lambda: cluster.remove_node(last, allow_graceful=False)
    finally:
        ray.shutdown()
        cluster.shutdown()
        os.environ.pop("PYTHONPATH")
        if before is not None:
            os.environ["PYTHONPATH"] = before


def _wrong(out: Path) -> int:
    """Inputs without a row, and rows too many."""
    rows = pl.results(out).table(["id", "input", "status"]).to_pylist()
    inputs = {row["input"] for row in rows if row["status"] == "done"}
    return (_PICTURES - len(inputs)) + (len(rows) - len(inputs))


def nodes() -> list[Section]:
    """Clusters of one, two and four nodes, an actor each; then of three, one of which is killed at work."""
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as home:
        folder = Path(home, "in")
        folder.mkdir()
        photographs(_PICTURES, str(folder))
        for count in (1, 2, 4):
            out = Path(home, str(count))
            with _nodes(count):
                begun = time.perf_counter()
                job = kills.job(out, folder)
                found = job.run(count, engine="ray", block=_BLOCK)
                ended = time.perf_counter()
            spent = pl.results(out).table(["seconds"]).column(0).to_pylist()
            at_work = sum(spent) / count
            name = f"{count} node{'s' if count > 1 else ''}"
            rows += [
                single(f"{name}: rows missing or too many", _wrong(out), unit="", limit=at_most(0)),
                single(f"{name}: in all", ended - begun, unit=" s", note=f"{found.shards} shards"),
                single(
                    f"{name}: beyond the actors' own work", ended - begun - at_work, unit=" s", note="starting, too"
                ),
            ]
        out = Path(home, "killed")
        with _nodes(3) as kill:
            gone: list[int] = []

            def strike() -> None:
                while not gone:
                    time.sleep(0.05)
                    if list(out.glob("shards/*.parquet")):
                        gone.append(len(list(out.glob("shards/*.parquet"))))
                        kill()

            striking = threading.Thread(target=strike, daemon=True)
            striking.start()
            found = kills.job(out, folder).run(3, engine="ray", block=_BLOCK)
            striking.join()
        rows += [
            single("a node of 3 killed: inputs finished by the others", found.inputs, unit="", note=f"of {_PICTURES}"),
            single("a node of 3 killed: rows missing or too many", _wrong(out), unit="", limit=at_most(0)),
        ]
    load = os.getloadavg()[0]
    about = (
        f"{_PICTURES} pictures in shards of {_BLOCK}, an actor a node of two CPUs, all of them on this machine of "
        f"{os.cpu_count()} cores with a load of {load:.0f}. The model is small and waits 0.02 s a pass and picture, so "
        "that actors work at the same time whatever the machine does."
    )
    return [Section("Batch: simulated clusters", about, rows)]


def beside_local(pictures: int) -> list[Section]:
    """One worker of each engine, once it works."""
    import ray

    with tempfile.TemporaryDirectory() as home:
        files = [str(f) for f in sorted(Path(photographs(pictures, home)).glob("*.jpg"))]
        local = pace(files, Path(home, "a", "shards"), 1)
        os.environ["PYTHONPATH"] = os.pathsep.join([str(_ROOT / "src"), str(_ROOT)])
        far = pace(files, Path(home, "b", "shards"), 1, engine="ray")
        ray.shutdown()
    load = f"with a load of {os.getloadavg()[0]:.0f} on {os.cpu_count()} cores"
    note = f"{load}; Ray's processes are sessions of their own, and a busy Linux gives each session a share"
    rows = [
        single("Ray : local, pictures a second of processor time", far.processor / local.processor, unit=" x",
               limit=at_least(0.85), note="driver, actors and all that Ray runs"),
        single("Ray : local, pictures a second on the clock", far.wall / local.wall, unit=" x", note=note),
    ]  # fmt: skip
    return [Section("Batch: Ray beside the local engine", f"Grad-CAM of {pictures} pictures, one worker each.", rows)]


def killing(count: int) -> list[Section]:
    """Kills of actors, of the driver, or both."""
    with tempfile.TemporaryDirectory() as home:
        folder = Path(home, "in")
        folder.mkdir()
        photographs(max(kills.PICTURES), str(folder))
        found = kills.killed(Path(home), folder, count, engine="ray")
    return [kills.section(found, "Batch: kills on Ray")]
