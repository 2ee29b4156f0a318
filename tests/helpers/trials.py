"""Maps beside one block of masks."""

from pellucid.evaluation.chance import Trial


def agreements(maps, masks, scores):
    trial = Trial(maps)
    trial.add(masks, scores)
    return trial.agreements()


def agreement(values, masks, scores):
    return agreements([values], masks, scores)[0]
