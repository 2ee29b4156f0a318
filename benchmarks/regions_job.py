"""ReX on inputs that lie ready, in its own environment: `regions_job.py NET.onnx FOLDER ROWS`.

Each `.npy` of the folder is one input `(1, 3, h, w)`. A line of JSON for each is added to the file ROWS as it is done:
the region's share of the input, and how many inputs the network saw. Inputs that have a line are left out.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from rex_xai.input.input_data import Data, Setup
from rex_xai.input.onnx import OnnxRunner
from rex_xai.lib import ReX


def session(file: str) -> onnxruntime.InferenceSession:
    """The network on one thread, which does not wait spinning."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])


def region(net: onnxruntime.InferenceSession, x: torch.Tensor) -> dict[str, float]:
    """ReX's sufficient region of the class that the network says, its settings as they come but for the seed."""
    predict, _ = OnnxRunner(net, Setup.ONNX, "cpu").gen_prediction_function()
    calls = 0

    def counted(inputs: object, target: object = None) -> object:
        nonlocal calls
        calls += inputs.shape[0] if isinstance(inputs, torch.Tensor) else len(inputs)
        return predict(inputs, target)

    rex = ReX(None, list(x.shape), "cpu", "RGB", counted)
    rex.args.seed, rex.args.progress_bar = 0, False
    rex.data = Data(x[0].numpy(), list(x.shape), "cpu", mode="RGB")
    rex.data.data, rex.data.transposed = x, True
    start = time.process_time()
    rex.set_target().calculate_responsibility().extract_sufficient_explanation()
    mask = rex.explanation.sufficiency_mask
    shown = counted(torch.where(mask, x, 0.0).reshape(x.shape))[0]
    return {
        "area": float(mask.reshape(x.shape)[0, 0].float().mean()),
        "calls": calls - 1,  # less the one that tells whether the region suffices
        "class": int(rex.data.target.classification),
        "kept": bool(shown.classification == rex.data.target.classification),
        "seconds": time.process_time() - start,
    }


def main() -> None:
    """One input after the other."""
    torch.set_num_threads(1)
    file, folder, rows = sys.argv[1:]
    net, kept = session(file), Path(rows)
    known = {json.loads(line)["input"] for line in kept.read_text().splitlines()} if kept.exists() else set()
    for path in sorted(Path(folder).glob("*.npy")):
        if path.stem not in known:
            found = region(net, torch.from_numpy(np.load(path)))
            with kept.open("a") as out:
                print(json.dumps({"input": path.stem, **found}), file=out)


main()
