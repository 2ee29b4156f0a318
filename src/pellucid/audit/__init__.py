"""Where a model goes wrong, and on what evidence: one table of samples, and what is found and tested on it.

`samples` builds the table; `reasons` finds what classes rest on that is no object and proves it by exchange
(`evidence`, `clusters`); `slices` finds where it errs more often (`columns`); `failures` learns which answers look
wrong; `review` is the first page of a review.
"""

from pellucid._room import called_as_verb
from pellucid.audit.failures import FailureScore
from pellucid.audit.findings import Findings
from pellucid.audit.reasons import Reliance
from pellucid.audit.review import Review
from pellucid.audit.samples import SampleTable
from pellucid.audit.slices import WeakSlice

__all__ = ["FailureScore", "Findings", "Reliance", "Review", "SampleTable", "WeakSlice"]

called_as_verb(__name__)
