"""Maps that are moved, and maps beside one block of masks."""

from pellucid.evaluation.chance import Trial, moves


def moved(values):
    return values.flatten()[moves(values.shape)]


def agreements(maps, masks, scores):
    trial = Trial(maps)
    trial.add(masks, scores)
    return trial.agreements()


def agreement(values, masks, scores):
    return agreements([values], masks, scores)[0]
