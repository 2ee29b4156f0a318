"""Samples with a known truth: models that are formulas, so that every value can be worked out by hand."""

import torch
from torch import nn

import pellucid as pl
from pellucid.evaluation.competitors import Foreign
from pellucid.evaluation.sample import Candidate, Inquiry, Sample
from pellucid.models.targets import Target


class Formula(nn.Module):
    """A function of the input as a network."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


class Value(Target):
    """The first column, as it is; its sign decides whether it is the answer, where that is asked for."""

    def __init__(self, decides=False):
        self.decides = decides

    def __call__(self, output):
        return output[:, 0]

    def lead(self, output, watched):
        return output[:, 0] - 0.5 if self.decides else None


def total(x):
    """The sum of all values."""
    return x.flatten(1).sum(1, keepdim=True)


def linear(weights):
    """A weighted sum of the values."""
    return lambda x: (x * weights.to(x)).flatten(1).sum(1, keepdim=True)


def sample(x, function=total, mask=None, decides=False, name="x"):
    """A sample `(C, *space)` of a model that is a function."""
    model = pl.wrap(Formula(function).eval(), scores="none")
    return Sample(model, x[None].float(), Value(decides), name=name, mask=mask)


def candidate(values, of=None, name="map"):
    """A map over the input as it is measured."""
    values = values.float()
    of = of or sample(torch.zeros(1, *values.shape))
    return Candidate(Foreign(name, lambda model, x, target: values[None]), values, values, True, of.over)


def read(metric, of, *maps):
    """What a metric (or its bank) says of maps over a sample."""
    with Inquiry(of) as inquiry:
        answers = metric.bank.answers(inquiry, [candidate(m, of) for m in maps])
    return [float(metric.measure(a)) for a in answers]
