"""Evaluation: measure whether an explanation can be trusted, on this model and this picture.

Insertion and deletion, whether a map that knows nothing would do as well, and the randomised-weights sanity test.
"""

from pellucid.evaluation.chance import Agreement
from pellucid.evaluation.faithfulness import Perturbed, cell_ranking, frame_grid, insertion_deletion
from pellucid.evaluation.sanity import randomised_copy, sanity_correlations
from pellucid.evaluation.verdict import diagnose, judge
from pellucid.numerics.statistics import spearman

__all__ = [
    "Agreement",
    "Perturbed",
    "cell_ranking",
    "diagnose",
    "frame_grid",
    "insertion_deletion",
    "judge",
    "randomised_copy",
    "sanity_correlations",
    "spearman",
]
