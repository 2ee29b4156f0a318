"""Every kind of result that there is: importing a verb enters its maker in `REQUESTS`."""

from pellucid.verbs import (
    activations,
    atlas,
    audit,
    audit_boxes,
    audit_regions,
    compare,
    concepts,
    distill,
    evaluate,
    explain,
    importance,
    stages,
    tcav,
    visualize,
)
from pellucid.verbs.request import REQUESTS

__all__ = [
    "REQUESTS",
    "activations",
    "atlas",
    "audit",
    "audit_boxes",
    "audit_regions",
    "compare",
    "concepts",
    "distill",
    "evaluate",
    "explain",
    "importance",
    "stages",
    "tcav",
    "visualize",
]

REQUESTS.extend("pellucid.results")
