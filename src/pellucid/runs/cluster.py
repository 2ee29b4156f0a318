"""The engine of many machines: Ray Data hands out inputs to actors that explain them. The only file that knows Ray.

    ray-inputs/*.parquet -> read -> repartition -> map_batches(Explainer) -> the lines of finished shards -> journal

An actor writes its shard to the shared folder by itself and answers with the line of it. The driver notes the line in
the same journal as the local engine's, so what is finished is finished, whatever becomes of Ray; a block that Ray runs
again leaves a shard without a line, which is thrown away. Ray's own checkpoints are not used: without a repartition
they note nothing before the end, they need CPUs of their own to go on, and blocks that fail are lost in silence.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pellucid.engine.heap import keep_freed_memory
from pellucid.errors import ModelError, PellucidError, StorageError
from pellucid.keep.journal import HANDED_OUT
from pellucid.keep.shards import arrow
from pellucid.runs.local import Chunk, written
from pellucid.runs.manifest import Item
from pellucid.runs.work import Work, WorkOrder

_WITHOUT = 'The cluster engine needs Ray: pip install "pellucid[ray]".'
_FIELDS = ("source", "given_id", "target", "stamp")


class Explainer:
    """An actor: a loaded model, which makes a shard of each block of inputs."""

    def __init__(self, order: WorkOrder, folder: str, threads: int) -> None:
        import torch

        keep_freed_memory()
        torch.set_num_threads(threads)
        self._work, self._folder = Work(order), Path(folder)

    def __call__(self, block: Mapping[str, Any]) -> dict[str, list[str]]:
        """The line of the shard that a block of inputs became."""
        items = [Item(*values) for values in zip(*(block[name].tolist() for name in _FIELDS), strict=True)]
        line = written(self._folder, self._work.rows(items)) if items else {}
        return {"line": [json.dumps({"weights": self._work.weights, **line})]}


@dataclass
class Cluster:
    """Actors on a Ray cluster, and what is to be done by them.

    Attributes:
        order, folder, count, threads: as the local engine's; the folder is one that all nodes share.
        begun, done: see `local.Pool`.
        block: inputs of a shard.
        gpus: of one actor; 0: it runs on a CPU; None: one where the model is asked onto one, or is asked nowhere and
            the cluster has one for each actor.
        cpus: of one actor at the most; a fraction lets several share one. Less where nothing would be left for reading.
    """

    order: WorkOrder
    folder: Path
    count: int
    threads: int
    begun: Callable[[str], None]
    done: Callable[[Mapping[str, Any]], None]
    block: int = 64
    gpus: float | None = None
    cpus: float = 0.75
    notes: list[str] = field(default_factory=list)

    def run(self, chunks: Iterator[Chunk], tick: Callable[[], None] = lambda: None) -> bool:
        """Explain all chunks.

        Raises:
            PellucidError: Ray is missing, the model can't be loaded, the rows can't be written, or a node's process
                dies at an input again and again.
        """
        ray = _ray()
        if not ray.is_initialized():
            _join(ray)
        try:
            share = self.share(ray.cluster_resources())
            self.begun(ray.get(ray.remote(_fingerprint).options(**share).remote(self.order)))
            todo = self.folder.with_name(HANDED_OUT)
            if _listed(chunks, todo, self.block):
                for row in self._lines(ray, todo, share):
                    line = json.loads(row["line"])
                    if line.pop("weights") and line:
                        self.done(line)
                    tick()
            shutil.rmtree(todo, ignore_errors=True)
            return True
        except ray.exceptions.RayError as error:
            raise _told(error) from error

    def share(self, resources: Mapping[str, float]) -> dict[str, float]:
        """What one actor takes of the cluster. A CPU is left for reading, without which Ray waits for ever."""
        gpus, device = self.gpus, str(self.order.model.get("device") or "")
        if gpus is None:
            free = not device and "entry" not in self.order.model and resources.get("GPU", 0) >= self.count
            gpus = float(device.startswith("cuda") or free)
        if gpus:
            return {"num_gpus": gpus, "num_cpus": 0}
        return {"num_cpus": min(self.cpus, max(resources.get("CPU", 1) - 1, 0.5) / self.count)}

    def _lines(self, ray: Any, todo: Path, share: Mapping[str, float]) -> Any:
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.execution_options.verbose_progress = False
        inputs = ray.data.read_parquet(str(todo)).repartition(target_num_rows_per_block=self.block)
        made = inputs.map_batches(
            Explainer,
            fn_constructor_args=(self.order, str(self.folder), self.threads),
            batch_size=self.block,
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=self.count),
            **share,
        )
        return made.iter_rows()


def _join(ray: Any) -> None:
    """Join the cluster that RAY_ADDRESS names or that runs here, else start one.

    Raises:
        StorageError: none answers where RAY_ADDRESS says.
    """
    how: dict[str, Any] = {"log_to_driver": False, "include_dashboard": False, "logging_level": "error"}
    named = os.environ.get("RAY_ADDRESS")
    left = Path(os.environ.get("RAY_TMPDIR") or "/tmp", "ray", "ray_current_cluster")
    if not named and left.is_file() and not _answers(left.read_text().strip()):
        how["address"] = "local"  # a killed cluster has left its address behind: Ray would wait for it, then give up
    try:
        ray.init(**how)
    except ConnectionError as error:
        said = named or "the address that Ray found"
        raise StorageError(f"No Ray cluster answers at {said}: `ray start` it, or unset RAY_ADDRESS.") from error


def _answers(address: str) -> bool:
    """Whether somebody listens at a host:port."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=2):
            return True
    except (OSError, ValueError):
        return False


def _fingerprint(order: WorkOrder) -> str:
    return Work(order).weights


def _listed(chunks: Iterator[Chunk], todo: Path, block: int) -> int:
    """Write the inputs that are to be done where all nodes read them; how many."""
    pa, count = arrow(), 0
    types = pa.schema([("source", pa.string()), ("given_id", pa.string()), ("target", pa.string())])
    types = types.append(pa.field("stamp", pa.int64()))
    todo.mkdir(parents=True, exist_ok=True)
    piece: list[Item] = []

    def write() -> None:
        table = pa.Table.from_pylist([asdict(item) for item in piece], schema=types)
        pa.parquet.write_table(table, todo / f"{count:012d}.parquet", row_group_size=block)

    for chunk in chunks:
        piece += chunk
        count += len(chunk)
        if len(piece) >= 64 * block:
            write()
            piece = []
    if piece:
        write()
    return count


def _ray() -> Any:
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise StorageError(_WITHOUT) from error
    return ray


def _told(error: Exception) -> PellucidError:
    """What a failure inside Ray means."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, PellucidError):
            return cause
        cause = getattr(cause, "cause", None) or cause.__cause__
    said = (str(error).strip().splitlines() or [type(error).__name__])[-1]
    return ModelError(
        f"A process of the cluster failed ({said}); what is finished is kept. If it dies at an input, `pellucid batch "
        "resume` on one machine finds which."
    )
