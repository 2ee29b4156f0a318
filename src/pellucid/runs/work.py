"""The row function: inputs in, rows out. The same on processes of this machine and on a cluster."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from pellucid.engine import default_batch, leave_no_trace
from pellucid.errors import MediaError, PellucidError
from pellucid.evaluation.sanity import shuffled_once
from pellucid.keep.key import key
from pellucid.models.feed import Prepared, feed_of
from pellucid.models.model import VisionModel
from pellucid.models.sources import load, model_of
from pellucid.models.targets import as_target
from pellucid.results.rows import row_of
from pellucid.runs.manifest import Item
from pellucid.runs.remote import fetched, is_remote
from pellucid.verbs.explain import ExplainRequest, explain_batch, explained, sampled
from pellucid.verbs.importance import importance_of_one
from pellucid.verbs.importance_request import ImportanceRequest
from pellucid.verbs.kinds import REQUESTS
from pellucid.verbs.redaction import Redactable, redaction
from pellucid.verbs.request import Request

DONE, FAILED, QUARANTINED = "done", "failed", "quarantined"
Row = dict[str, Any]


@dataclass(frozen=True)
class WorkOrder:
    """What each worker is told: plain values, so that they travel.

    Attributes:
        model: what `load` takes; or `entry`, a `module:function` that builds it, and the `path` of the folder it is in,
            and what `model_of` takes besides.
        requests: of each input.
        precision: of maps: `float16` with a scale, or `float32`.
        redact: boxes that nobody is shown who looks at the rows (see `redaction`).
    """

    model: Mapping[str, Any]
    requests: tuple[Mapping[str, Any], ...]
    precision: str = "float16"
    redact: str | None = None

    def asked(self) -> list[Request]:
        """The requests, read back."""
        assert REQUESTS
        return [Request.of_values(values) for values in self.requests]

    def load(self) -> VisionModel:
        """The model.

        Raises:
            ModelError: it cannot be loaded or built.
        """
        if "entry" in self.model:
            said = {name: value for name, value in self.model.items() if name not in ("entry", "path")}
            return model_of(str(self.model["entry"]), str(self.model.get("path") or ""), **said)
        import torch

        device = self.model.get("device") or ("cuda" if torch.cuda.is_available() else "cpu")
        return load(**{**self.model, "device": device})


class Work:
    """A loaded model and what it is asked."""

    def __init__(self, plan: WorkOrder) -> None:
        self.plan = plan
        self.requests = plan.asked()
        self.hide = None if plan.redact is None else redaction(plan.redact)
        frames = next((r.frames for r in self.requests if isinstance(r, ExplainRequest)), None)
        self._keys = {id(request): request.key for request in self.requests}
        self.model = sampled(plan.load(), frames)
        self.weights = self.model.fingerprint()
        self.size = max(1, default_batch(self.model.device) // 2)

    def rows(
        self,
        items: Sequence[Item],
        at: Callable[[Sequence[Item]], None] = lambda items: None,
        stopped: Callable[[], bool] = lambda: False,
    ) -> list[Row]:
        """The rows of some inputs; decoding runs ahead of the model.

        Args:
            items: inputs.
            at: is told which inputs the model is about to see: if the process dies, it was one of these.
            stopped: whether to end early, with the rows that are finished.
        """
        found: list[Row] = []
        windows = self.model.medium.moving and self.model.clips.plan.kind == "windows"
        with leave_no_trace(self.model.module) as guard, shuffled_once():
            for batch in self._batches(items, decode=not windows):
                if stopped():
                    break
                at([item for item, _ in batch])
                begun = time.perf_counter()
                rows = self._in_windows(batch[0][0]) if windows else self._answered(batch)
                guard.renew()
                seconds = (time.perf_counter() - begun) / max(len(rows), 1)
                found += [{**row, "seconds": seconds} for row in rows]
        return found

    def failed(self, item: Item, error: str, status: str = FAILED, sha256: str | None = None) -> list[Row]:
        """The rows of an input that could not be explained."""
        return [self._row(item, asked, sha256, status=status, error=error) for asked in self._asked(item)]

    def _batches(self, items: Sequence[Item], *, decode: bool) -> Iterator[list[tuple[Item, Prepared | str]]]:
        """Inputs of one size and target together; unreadable ones, and those that are not to be decoded, alone."""
        if not decode:
            for item in items:
                yield [(item, "")]
            return
        waiting: list[tuple[Item, Prepared | str]] = []
        with ThreadPoolExecutor(1, thread_name_prefix="decoding") as ahead:
            futures = [ahead.submit(self._opened, item) for item in items[: 2 * self.size]]
            for k, item in enumerate(items):
                opened = futures[k].result()
                futures[k] = None  # type: ignore[call-overload]
                if (further := k + 2 * self.size) < len(items):
                    futures.append(ahead.submit(self._opened, items[further]))
                if isinstance(opened, str):
                    yield [(item, opened)]
                    continue
                first = waiting[0] if waiting else None
                if first and (len(waiting) >= self.size or not _alike(first, (item, opened))):
                    yield waiting
                    waiting = []
                waiting.append((item, opened))
        if waiting:
            yield waiting

    def _opened(self, item: Item) -> Prepared | str:
        """An input, ready for the model; or what is wrong with it."""
        try:
            if not item.source:
                raise MediaError("The manifest names no input in this row.")
            feed = feed_of(self.model)
            if is_remote(item.source):
                with fetched(item.source) as file:
                    found = feed.prepared(self.model, file)
                found.source["source"] = item.source
            else:
                found = feed.prepared(self.model, item.source)
            if self.hide is not None:
                self.hide.of_input(found)  # what cannot be hidden is a failed row before it is measured
            return found
        except PellucidError as error:
            return str(error)
        except Exception as error:
            return f"unexpected {type(error).__name__}: {error}"

    def _answered(self, batch: list[tuple[Item, Prepared | str]]) -> list[Row]:
        """The rows of a batch; one that does not fit is halved, one that fails is tried input by input."""
        if isinstance(batch[0][1], str):
            return self.failed(batch[0][0], batch[0][1])
        ready = [(item, opened) for item, opened in batch if isinstance(opened, Prepared)]
        try:
            return self._rows_of(ready)
        except Exception as error:
            full = _no_memory(error)
            if full and len(ready) > 1:
                self.size = min(self.size, max(1, len(ready) // 2))
                half = len(ready) // 2
                return self._answered(list(ready[:half])) + self._answered(list(ready[half:]))
            if len(ready) > 1:
                return [row for one in ready for row in self._answered([one])]
            return self._one_by_one(*ready[0], error)

    def _one_by_one(self, item: Item, opened: Prepared, error: Exception) -> list[Row]:
        """Each request of one input by itself, where all of them together failed."""
        asked = self._asked(item)
        rows: list[Row] = []
        for request in asked:
            try:
                if len(asked) == 1:
                    raise error
                rows += self._rows_of([(item, opened)], [request])
            except Exception as reason:
                said = str(reason) if isinstance(reason, PellucidError) else f"{type(reason).__name__}: {reason}"
                sha = opened.source["sha256"]
                rows.append(self._row(item, request, sha, status=FAILED, error=said))
        return rows

    def _asked(self, item: Item) -> list[Request]:
        if item.target is None:
            return self.requests
        target = as_target(item.target)
        return list({r.key: r for r in (replace(r, target=target) for r in self.requests)}.values())  # type: ignore[call-arg]

    def _rows_of(self, ready: list[tuple[Item, Prepared]], asked: list[Request] | None = None) -> list[Row]:
        asked = self._asked(ready[0][0]) if asked is None else asked
        if isinstance(asked[0], ImportanceRequest):
            return [
                self._row(item, r, opened.source["sha256"], self._hidden(importance_of_one(self.model, opened, r)))
                for item, opened in ready
                for r in asked
                if isinstance(r, ImportanceRequest)
            ]
        requests = [r for r in asked if isinstance(r, ExplainRequest)]
        methods = _distinct([r.method for r in requests])
        targets = _distinct([r.target for r in requests])
        inputs, seed = [o for _, o in ready], requests[0].seed
        found = explain_batch(self.model, inputs, methods, targets, seed, weights=self.weights)
        rows: list[Row] = []
        for (item, opened), (_, results) in zip(ready, found, strict=True):
            if requests[0].check:
                results.check()
            masked = results[0].session.passes / len(results) if results[0].session else 0
            self._hidden(results)
            each = len(results) // len(targets)
            expanded = each != len(methods)  # once for each pathway of a model that has several
            sent: dict[str, int] = {}
            for n, e in enumerate(results):
                of_target = [r for r in requests if r.target == targets[n // each]]
                method = e.method if expanded else methods[n % each]
                request = next(r for r in of_target if method in (r.method, r.method.name))
                key = self._key(request)
                turn = sent[key] = sent.get(key, -1) + 1
                rows.append(self._row(item, request, opened.source["sha256"], e, turn=turn))
                rows[-1]["forwards"] += masked  # of the check, which all maps of a picture share
        return rows

    def _in_windows(self, item: Item) -> list[Row]:
        """A clip explained window by window, which opens it by itself."""
        rows: list[Row] = []
        for request in self._asked(item):
            assert isinstance(request, ExplainRequest)
            try:
                result = self._hidden(explained(self.model, item.source, replace(request, frames=None)))
                rows.append(self._row(item, request, result.record.input["sha256"], result))
            except PellucidError as error:
                rows.append(self._row(item, request, None, status=FAILED, error=str(error)))
        return rows

    def _hidden(self, found: Redactable) -> Redactable:
        """A result with what is to be hidden noted, so that whoever opens its row is not shown it."""
        return found if self.hide is None else self.hide(found)

    def _key(self, request: Request) -> str:
        """Of a request that every input has it is worked out once."""
        return self._keys.get(id(request)) or request.key

    def _row(
        self,
        item: Item,
        request: Request,
        sha256: str | None,
        result: Any = None,
        *,
        turn: int = 0,
        status: str = DONE,
        error: str | None = None,
    ) -> Row:
        """A row. Its id is a hash of the input (its name and content), of the model, of the request."""
        asked = self._key(request)
        parts = [item.given_id, item.source, sha256, self.weights, asked, *([turn] if turn else [])]
        target = getattr(request, "target", None)
        row: Row = {
            "id": key(*parts),
            "status": status,
            "error": error,
            "input": item.source,
            "name": os.path.basename(item.source) or item.source,
            "sha256": sha256,
            "given_id": item.given_id,
            "key": item.key,
            "stamp": item.stamp,
            "request": asked,
            "verb": request.verb,
            "method": _method(request),
            "target": None if target is None else target.spec(),
        }
        return row if result is None else row | row_of(result, self.plan.precision)


def _distinct(items: Sequence[Any]) -> list[Any]:
    """Each once, in order; they need not be hashable."""
    return [item for k, item in enumerate(items) if item not in items[:k]]


def _method(request: Request) -> str | None:
    if isinstance(request, ExplainRequest):
        return request.method.name
    return f"{request.players.kind} by {request.estimator.name}" if isinstance(request, ImportanceRequest) else None


def _alike(a: tuple[Item, Prepared | str], b: tuple[Item, Prepared | str]) -> bool:
    """Whether two inputs fit into one batch."""
    same = isinstance(a[1], Prepared) and isinstance(b[1], Prepared) and a[1].x.shape == b[1].x.shape
    return same and a[0].target == b[0].target


def _no_memory(error: BaseException | None) -> bool:
    """Whether memory ran out, in whatever way it was said."""
    import torch

    while error is not None:
        said = str(error).casefold()
        if isinstance(error, torch.OutOfMemoryError | MemoryError) or "not enough memory" in said:
            return True
        error = error.__cause__
    return False
