"""How forwards and backwards are run: capture, leave no trace, micro-batches, progress.

The engine knows tensors and `torch.nn.Module`; it knows no method, no model zoo and no file format.
"""

from pellucid.engine.batching import adaptive_batches, default_batch
from pellucid.engine.capture import Capture, Cost, find_layer, gradients, unwrap
from pellucid.engine.temporal_baselines import TEMPORAL
from pellucid.engine.trace import leave_no_trace
from pellucid.progress import Reporter, reporting, task

__all__ = [
    "TEMPORAL",
    "Capture",
    "Cost",
    "Reporter",
    "adaptive_batches",
    "default_batch",
    "find_layer",
    "gradients",
    "leave_no_trace",
    "reporting",
    "task",
    "unwrap",
]
