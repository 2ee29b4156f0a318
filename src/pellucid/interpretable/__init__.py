"""Models that a person can read, in place of a network or of its last part, with how far to believe them.

`base` and one file a kind (tree, linear, additive, rules, examples, hierarchy, bcos) know columns of numbers only;
`words` computes such columns from a layer; `learn` chooses the complexity and measures; `distilled` and `opening` keep
a model on disk and open it again; `net` puts it on top of its network, so that it can be explained itself.
"""

from pellucid.interpretable.additive import Additive
from pellucid.interpretable.base import Readable, Reason
from pellucid.interpretable.bcos import BcosConv2d, BcosHead, BcosLinear, BcosNet
from pellucid.interpretable.distilled import Surrogate
from pellucid.interpretable.examples import Neighbours, Prototypes
from pellucid.interpretable.fidelity import Fidelity, Interval
from pellucid.interpretable.hierarchy import Hierarchy
from pellucid.interpretable.linear import SparseLinear
from pellucid.interpretable.rules import Rules
from pellucid.interpretable.tree import Tree

__all__ = [
    "Additive",
    "BcosConv2d",
    "BcosHead",
    "BcosLinear",
    "BcosNet",
    "Fidelity",
    "Hierarchy",
    "Interval",
    "Neighbours",
    "Prototypes",
    "Readable",
    "Reason",
    "Rules",
    "SparseLinear",
    "Surrogate",
    "Tree",
]
