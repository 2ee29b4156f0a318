"""Requests as data: written down, read back, told apart, and refused where they hold what is no data."""

import inspect
import json
from dataclasses import MISSING, fields

import pytest
import torch

import pellucid as pl
from pellucid.concepts import get_dictionary
from pellucid.errors import StorageError
from pellucid.features import Settings, parse_objective
from pellucid.heatmaps import get_method
from pellucid.importance import get_estimator, get_players
from pellucid.models.targets import as_target
from pellucid.verbs.activations import ActivationsRequest
from pellucid.verbs.atlas import AtlasRequest
from pellucid.verbs.audit import AuditRequest
from pellucid.verbs.audit_boxes import BoxAuditRequest
from pellucid.verbs.audit_regions import RegionAuditRequest
from pellucid.verbs.compare import CompareRequest
from pellucid.verbs.concepts import ConceptsRequest
from pellucid.verbs.distill import DistillRequest
from pellucid.verbs.evaluate import EvaluateRequest
from pellucid.verbs.explain import ExplainRequest
from pellucid.verbs.importance_request import ImportanceRequest
from pellucid.verbs.kinds import REQUESTS
from pellucid.verbs.request import Request
from pellucid.verbs.stages import StagesRequest
from pellucid.verbs.tcav import TcavRequest
from pellucid.verbs.visualize import FeatureRequest

EXPLAIN = ExplainRequest(method=get_method("rise", seed=3), target=as_target("tabby>lynx"), frames="uniform:8")
ASKED = [
    EXPLAIN,
    ImportanceRequest(
        players=get_players("patches", count=9), estimator=get_estimator("shapley", samples=50), target=as_target(3)
    ),
    FeatureRequest(
        objectives=(parse_objective("channel:features.3:7"),),
        settings=Settings.preset("fast", steps=5),
        exemplars=("sample:cat",),
        by="relevance",
        target=as_target("tabby"),
        top=2,
        seeds=1,
        seed=0,
    ),
    ActivationsRequest(layer=("a", "b"), by="relevance", target=as_target(1)),
    AtlasRequest(size=4, projection="pca"),
    CompareRequest(seed=3),
    EvaluateRequest(methods=(get_method("rise", seed=3), get_method("grad-cam")), target=as_target("tabby")),
    AuditRequest(layer="4", given={"site": ("a", "b")}),
    BoxAuditRequest(truth="truth.json", given={"site": ("a", "b")}, least=0.4, score=0.2),
    RegionAuditRequest(truth="masks", given={"site": ("a", "b")}, least=0.4, smallest=0.01),
    ConceptsRequest(by=get_dictionary("nmf", count=4), words=("stripe",)),
    DistillRequest(into="linear", teacher="cnn"),
    StagesRequest(method=get_method("lrp"), target=as_target("tabby"), layer=("a", "b")),
    TcavRequest(pictures="here", random="there", target=as_target("tabby")),
]


def test_every_verb_with_results_has_one():
    assert {r.verb for r in ASKED} == {maker.request.verb for maker in REQUESTS.values()}


@pytest.mark.parametrize("asked", ASKED, ids=lambda r: r.verb)
def test_it_is_written_down_and_read_back(asked):
    text = json.dumps(asked.as_dict())
    again = Request.of_values(json.loads(text))
    assert type(again) is type(asked)
    assert again.as_dict() == asked.as_dict()
    assert again.key == asked.key


def test_its_id_hangs_on_every_setting():
    others = [
        {"method": get_method("rise", seed=4)},
        {"method": get_method("rise", seed=3, max_samples=99)},
        {"target": as_target("lynx>tabby")},
        {"frames": None},
        {"seed": 1},
        {"check": True},
    ]
    values = vars(EXPLAIN)
    assert len({EXPLAIN.key, *(ExplainRequest(**{**values, **other}).key for other in others)}) == 1 + len(others)


@pytest.mark.parametrize(
    ("asked", "what"),
    [
        (ExplainRequest(method=get_method("grad-cam"), target=as_target(lambda y: y[:, 0])), "target"),
        (
            ExplainRequest(method=get_method("occlusion", baseline=torch.zeros(3, 4, 4)), target=as_target(0)),
            "baseline",
        ),
        (ConceptsRequest(words=(object(),)), "words"),
    ],
    ids=["function", "tensor", "object"],
)
def test_what_is_no_data_is_refused_in_one_sentence(asked, what):
    with pytest.raises(StorageError, match=rf"^Its {what} was an? .*, which a record cannot hold: .*\.$"):
        asked.as_dict()


@pytest.mark.parametrize("values", [{}, {"verb": "dance"}, {"verb": "atlas", "colour": 1}], ids=str)
def test_what_is_no_request_is_refused(values):
    with pytest.raises(StorageError, match="request of"):
        Request.of_values(values)


def test_it_runs_as_the_verb_does():
    from helpers.batch_entry import small

    picture = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(0))
    asked = Request.of_values({"verb": "explain", "method": {"method": ["grad-cam", {}]}, "target": {"target": "two"}})
    alone = pl.explain(small(), picture, "grad-cam", "two")
    torch.testing.assert_close(asked.run(small(), picture).attribution, alone.attribution)


SAME = [ActivationsRequest, AtlasRequest, ConceptsRequest, DistillRequest, TcavRequest]


@pytest.mark.parametrize("kind", SAME, ids=lambda k: k.verb)
def test_its_settings_are_those_of_the_verb(kind):
    import pellucid.verbs.kinds as kinds

    known = inspect.signature(getattr(getattr(kinds, kind.verb), kind.verb)).parameters
    for f in fields(kind):
        assert f.name in known
        if f.default is not MISSING:
            assert f.default == known[f.name].default
