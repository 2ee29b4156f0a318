"""Methods of rules in half precision, in two threads, and on compiled models: what they are on the plain one."""

import threading

import pytest
import torch
from torch import nn
from torch.nn import functional

from helpers.nets import noise, seeded
from pellucid.heatmaps import get_method

METHODS = {
    "guided-backprop": {},
    "lrp": {},
    "lrp-gamma": {"composite": "epsilon-gamma-box"},
    "lrp-alpha-beta": {"composite": "alpha-beta"},
    "excitation-backprop": {},
    "deep-lift": {},
}


class Net(nn.Module):
    """Functions, an in-place call, a normalisation."""

    def __init__(self):
        super().__init__()
        self.a, self.norm, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3)
        self.fc = nn.Linear(8, 3)

    def forward(self, x):
        x = functional.relu(self.norm(self.a(x)), inplace=True)
        return self.fc(torch.relu(self.b(x)).mean((2, 3)))


def made(name):
    return get_method(name.split("-")[0] if name.startswith("lrp") else name, **METHODS[name])


@pytest.fixture(scope="module")
def net():
    return seeded(Net).eval()


@pytest.mark.parametrize("name", METHODS)
def test_bfloat16_is_the_same_map_but_for_its_rounding(net, name):
    x = noise(2, 3, 8, 8)
    expected = made(name).attribute(net, x, 1)
    half = seeded(Net).eval().to(torch.bfloat16)
    found = made(name).attribute(half, x.to(torch.bfloat16), 1).float()
    assert found.isfinite().all()
    alike = torch.cosine_similarity(found.flatten(1), expected.flatten(1))
    assert float(alike.min()) > 0.9


@pytest.mark.parametrize("name", METHODS)
def test_two_threads_find_what_each_finds_alone(net, name):
    inputs = [noise(2, 3, 8, 8, seed=k) for k in range(2)]
    expected = [made(name).attribute(net, x, 1) for x in inputs]
    found, meet = {}, threading.Barrier(2)

    def work(k):
        meet.wait()
        found[k] = [made(name).attribute(net, inputs[k], 1) for _ in range(5)]

    threads = [threading.Thread(target=work, args=(k,)) for k in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for k in range(2):
        for each in found[k]:
            torch.testing.assert_close(each, expected[k])


@pytest.mark.parametrize("name", METHODS)
def test_a_compiled_model_has_the_map_of_the_plain_one(net, name):
    x = noise(2, 3, 8, 8)
    compiled = torch.compile(net, backend="eager")
    compiled(x)  # what runs before is compiled; rules need the functions, and find them
    torch.testing.assert_close(made(name).attribute(compiled, x, 1), made(name).attribute(net, x, 1))


@pytest.mark.parametrize("name", [m for m in METHODS if m != "deep-lift"])
def test_scores_inside_the_rules_are_the_models_own(net, name):
    x, scores = noise(2, 3, 8, 8), []

    def score(output):
        scores.append(output[:, 1].detach())
        return output[:, 1]

    made(name).explain(net, x, [score])
    assert all(torch.equal(s, net(x)[:, 1]) for s in scores)
