"""The contract of metrics: those of the toolkit keep it, and each promise is seen to be broken."""

import dataclasses

import pytest
import torch

from pellucid.errors import MethodError
from pellucid.evaluation.banks import RankCurves
from pellucid.evaluation.metrics import METRICS, Metric
from pellucid.testing import check_metric


def checkable(metric):
    bank = metric.bank
    return not (metric.clips or bank.across or bank.oracle or bank.parts or bank.swayed)


@pytest.mark.parametrize("name", [m.name for m in METRICS.values() if checkable(m)])
def test_metrics_keep_it(name):
    check_metric(name)


def test_what_reads_clips_or_all_samples_is_refused():
    refused = [m for m in METRICS.values() if not checkable(m)]
    assert refused
    for metric in refused:
        with pytest.raises(MethodError, match="check it on your own"):
            check_metric(metric)


def made(measure, category="complexity", better="higher", about="A number.", bank=None):
    return Metric(
        "mine", category, better, "an example", about, bank=bank or METRICS["sparseness"].bank, measure=measure
    )


def test_each_promise_is_seen_to_be_broken():
    calls = []

    def counted(_found):
        calls.append(1)
        return float(len(calls))

    def drawn(_found):
        return float(torch.rand(()))

    def falls(found):
        return float(found.morf[0] - found.morf[-1]) - float(found.morf[0] - found.morf[1])

    check_metric(made(lambda _found: 1.0))
    check_metric(made(lambda _found: float("nan")))
    for broken, told in [
        (made(lambda _found: "much"), "which is no number"),
        (made(lambda _found: float("inf")), "which is no number"),
        (made(counted), "Asked again"),
        (made(drawn), "random numbers"),
        (made(lambda _found: 1.0, about=""), "no definition"),
        (made(lambda _found: 1.0, category="beauty"), "no category"),
        (made(falls, "faithfulness", bank=RankCurves()), "blind"),
    ]:
        with pytest.raises(AssertionError, match=told):
            check_metric(broken)


def test_a_bank_whose_answers_hang_on_the_maps_beside_is_seen():
    @dataclasses.dataclass(frozen=True)
    class Ranks(type(METRICS["sparseness"].bank)):
        def answers(self, inquiry, candidates):
            return [float(k + len(candidates)) for k, _ in enumerate(candidates)]

    with pytest.raises(AssertionError, match="beside"):
        check_metric(made(lambda found: found, bank=Ranks()))
