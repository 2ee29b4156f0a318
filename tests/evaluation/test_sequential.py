"""Looking after every block, and sooner away, says what looking at all blocks says, of 30 pictures, for less."""

import pytest
import torch
from benchmarks import blind
from benchmarks.sequential import with_all_blocks

from pellucid.evaluation import Perturbed
from pellucid.evaluation.faithfulness import BLOCKS
from pellucid.evaluation.verdict import SIGNIFICANT


class Watched(Perturbed):
    """How many blocks were looked at."""

    looked = 0

    def _block(self, k):
        self.looked = max(self.looked, k + 1)
        return super()._block(k)


@pytest.mark.slow
def test_the_verdict_is_that_of_all_blocks_on_thirty_pictures():
    same, looked, false = [], [], []
    for kind in blind.PLANTED[:3]:
        for seed in range(10):
            subject = blind.planted(kind, seed)
            perturbed = Watched(subject.score, subject.x, seed)
            drawn = blind.blind_maps(torch.Generator().manual_seed(seed))
            for name, values in [*subject.maps.items(), *drawn.items()]:
                perturbed.looked = 0
                believed = perturbed.agreement(values).p_value <= SIGNIFICANT
                looked.append(perturbed.looked)
                same.append(believed == (with_all_blocks(perturbed, values) <= SIGNIFICANT))
                if name in drawn:
                    false.append(believed)
                else:
                    assert believed, f"the true map of {kind} {seed}"
    assert sum(same) >= 0.97 * len(same)
    assert sum(false) <= 0.05 * len(false)
    assert sum(looked) / len(looked) < 0.4 * BLOCKS
