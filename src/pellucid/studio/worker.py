"""The process that computes: lines of JSON come in, lines of JSON go out; it ends when nobody is left to ask it.

It runs the same verbs as the command line, in the same order, and writes the same files.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from pellucid.errors import PellucidError
from pellucid.language import speaking
from pellucid.progress import reporting
from pellucid.studio.cost import CHECK, made, pace, players_costs, presets
from pellucid.studio.tasks import TASKS, running, verified
from pellucid.verbs.costs import planned

_KEPT = 3  # models in memory


class _CancelledError(KeyboardInterrupt):
    """The job that runs is not wanted any more: it ends as if somebody had pressed Ctrl+C."""


class _Spoken:
    """What is said to the studio, one message a line."""

    def __init__(self, out: TextIO) -> None:
        self._out, self._lock = out, threading.Lock()

    def say(self, **message: Any) -> None:
        with self._lock:
            self._out.write(json.dumps(message) + "\n")
            self._out.flush()


class _Progress:
    """Passes progress on, and ends the work between two steps when it is cancelled."""

    def __init__(self, line: _Spoken, cancelled: threading.Event) -> None:
        self._line, self._cancelled = line, cancelled
        self._tasks: dict[int, tuple[str, int | None, int]] = {}

    def start(self, label: str, total: int | None) -> int:
        number = len(self._tasks)
        self._tasks[number] = (label, total, 0)
        self.advance(number, 0)
        return number

    def advance(self, task: int, steps: int) -> None:
        if self._cancelled.is_set():
            raise _CancelledError
        label, total, done = self._tasks[task]
        done += steps
        self._tasks[task] = (label, total, done)
        self._line.say(kind="progress", label=label, share=min(1.0, done / total) if total else 0.0)

    def stop(self, task: int) -> None:
        pass


class Bench:
    """The models in memory, and what is done with them."""

    def __init__(self, device: str) -> None:
        import torch

        self._device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self._models: dict[tuple[str | None, ...], Any] = {}

    def model(self, name: str, options: Mapping[str, str]) -> Any:
        """A model by name, loaded once; an image model as one of clips or volumes where that is asked."""
        from pellucid.models.sources import model_of

        meaning: dict[str, Any] = {
            key: options.get(key.replace("_", "-")) or None for key in ("per_frame", "per_slice")
        }
        key = (name, *meaning.values())
        if key in self._models:
            self._models[key] = self._models.pop(key)
            return self._models[key]
        loaded = model_of(name, Path.cwd(), device=self._device, **meaning)
        self._models[key] = loaded
        while len(self._models) > _KEPT:
            self._models.pop(next(iter(self._models)))
        return loaded

    def run(self, verb: str, model: str, given: str, options: dict[str, str], folder: Path) -> dict[str, Any]:
        """One job: its files are in the folder when this returns."""
        vision = self.model(model, options)
        if verb == "describe":
            return described(vision)
        with running(options):
            if verb == "verify":
                return {"said": verified(vision, given)}
            TASKS[verb](vision, given, options, folder)
        return {}


def described(vision: Any) -> dict[str, Any]:
    """What the pages tell of a model: its classes, its layers, what it takes, and how long methods will take."""
    import torch

    from pellucid.heatmaps import METHODS
    from pellucid.models.layers import layers

    found: list[dict[str, str]] = []
    if vision.medium.name == "picture":
        inputs = torch.zeros(1, vision.preprocess.channels, *vision.preprocess.input_size)
        places = layers(vision.module, inputs.to(vision.device, vision.dtype), key="output")
        found = [{"name": x.name, "class": x.kind, "reads": str(x.layout)} for x in places]
    told: dict[str, Any] = {
        "labels": list(vision.labels or ()),
        "layers": found,
        "clips": bool(vision.takes_clips),
        "costs": {},
    }
    given = {"picture": "sample:cat", "clip": "suite:motion:0"}.get(vision.medium.name)
    if given is not None:
        measured = pace(vision, given)
        costs = {name: method.cost for name, method in METHODS.items()}
        seconds = {name: measured.seconds(planned(METHODS.make(name, {}), costs, measured.sizes)) for name in METHODS}
        told["costs"] = {
            "pass": measured.forward,
            "check": CHECK[vision.takes_clips] * measured.forward,
            "methods": seconds,
            "importance": players_costs(measured.sizes),
            "presets": {name: made(steps, views, measured) for name, (steps, views) in presets().items()},
        }
    return told


def _write_page(folder: Path, page: Path) -> None:
    """The results of a job as their page, made here, where everything is loaded already."""
    from pellucid.verbs.report import report

    page.parent.mkdir(parents=True, exist_ok=True)
    with speaking(page.parent.name):
        report([folder], limit=200.0, home=folder).save(page)


def _catalogue() -> dict[str, Any]:
    """What may be asked, for the forms."""
    from pellucid.heatmaps import METHODS
    from pellucid.importance import ESTIMATORS, FEATURES
    from pellucid.media.generated import SUITES
    from pellucid.media.samples import SAMPLES

    methods = [{"name": n, "family": m.family, "cost": m.cost, "needs": m.needs} for n, m in METHODS.items()]
    samples = {name: about for name, (_, about) in SAMPLES.items()}
    names = {"features": list(FEATURES), "estimators": list(ESTIMATORS), "suites": list(SUITES)}
    return {"methods": methods, "samples": samples, **names}


def serve(device: str, lines: TextIO, out: TextIO) -> None:
    """Answer until the input ends."""
    line, cancelled, waiting = _Spoken(out), threading.Event(), queue.Queue[dict[str, Any]]()

    def listen() -> None:
        for text in lines:
            message = json.loads(text)
            if message["kind"] == "cancel":
                cancelled.set()
            else:
                cancelled.clear()
                waiting.put(message)
        os._exit(0)  # the studio is gone: whatever was finished is on disk

    threading.Thread(target=listen, daemon=True).start()
    bench = Bench(device)
    line.say(kind="ready", **_catalogue())
    while True:
        asked = waiting.get()
        try:
            with reporting(_Progress(line, cancelled)):
                told = bench.run(asked["verb"], asked["model"], asked["input"], asked["options"], Path(asked["folder"]))
            if asked["page"]:
                _write_page(Path(asked["folder"]), Path(asked["page"]))
            line.say(kind="done", **told)
        except _CancelledError:
            line.say(kind="cancelled")
        except PellucidError as error:
            line.say(kind="failed", error=str(error))
        except Exception as error:  # whatever a model does, the next job is another
            reason = (str(error).strip().splitlines() or [""])[0]
            line.say(kind="failed", error=f"unexpected {type(error).__name__}{': ' + reason if reason else ''}")


if __name__ == "__main__":
    # What libraries print must not come between the lines.
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the studio decides when it ends
    private = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    serve(sys.argv[1] if len(sys.argv) > 1 else "", sys.stdin, private)
