"""Generated clips whose evidence is known in time and space, certificates that a model rests on it, and scores of maps.

The clips are drawn in `pellucid.media.generated`, the models trained in `pellucid.models.suites`.
"""

from pellucid.evaluation.suites.video.certificate import Certificate, certify
from pellucid.evaluation.suites.video.scores import frame_difference, random_pointing, temporal_pointing, tube_auc

__all__ = ["Certificate", "certify", "frame_difference", "random_pointing", "temporal_pointing", "tube_auc"]
