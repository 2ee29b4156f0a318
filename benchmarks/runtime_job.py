"""One measured job in a process of its own: `runtime_job.py KIND MODEL COUNT PRECISION FILE`, of the build on the path.

Prints what it took as JSON, and leaves the map in the file named last.
"""

from __future__ import annotations

import json
import resource
import sys
import time
import warnings

import torch

import pellucid as pl
from pellucid.heatmaps import get_method


def main() -> None:
    """Load, run the job once, tell."""
    kind, name, count, precision, file = sys.argv[1:]
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = pl.load(name, random_weights=name != "efficientnet-lite0")
    if kind == "rise":
        picture = pl.read_image("sample:cat")
        x = model.preprocess(picture)[0][None]
        model.predict(x)
        wall, cpu = time.perf_counter(), time.process_time()
        if precision == "f32":
            found = get_method("rise", samples=int(count)).explain(model, x, [None])[0]
        else:
            with pl.runtime("openvino", precision):
                found = get_method("rise", samples=int(count)).explain(model, x, [None])[0]
        values = found.values
        ran = getattr(found.cost, "ran", None)
        said = {} if ran is None else {**ran.as_dict(), "notes": list(ran.notes)}
    else:
        model.predict(model.preprocess(pl.read_image("sample:cat"))[0][None])
        wall, cpu = time.perf_counter(), time.process_time()
        answer = pl.importance(model, ["sample:cat", "sample:coffee", "sample:astronaut"][: int(count)], by="shapley")
        values = torch.stack([share.values for share in answer.shares])
        said = answer.record.run.get("runtime", {})
    spent = {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}
    torch.save(values, file)
    print(json.dumps(spent | {"ran": said, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))


main()
