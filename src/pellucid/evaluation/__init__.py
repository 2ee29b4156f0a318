"""Evaluation: measure whether an explanation can be trusted, on this model and this picture.

Insertion and deletion against random orders of the same cells, and the randomised-weights sanity test.
"""

from pellucid.evaluation.faithfulness import Perturbed, cell_ranking, frame_grid, insertion_deletion
from pellucid.evaluation.sanity import randomised_copy, sanity_correlations, spearman
from pellucid.evaluation.verdict import diagnose, judge

__all__ = [
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
