"""A network taught further on pictures whose wrong parts tell nothing: beside loops by hand, and on a blind network."""

import time

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import pellucid as pl
from pellucid.audit import repair as head
from pellucid.audit.evidence import region_part
from pellucid.audit.samples import Reopened, reread
from pellucid.audit.teaching import Emphasis, NetworkLesson, moved, taught_further
from pellucid.media import read_folder

LABELS = ["dark", "light"]
SIDE = 16
PLAIN = pl.Preprocess(input_size=(SIDE, SIDE), mean=(0, 0, 0), std=(1, 1, 1))


class Blind(nn.Module):
    """Its two features both see the lamp in the corner and nothing else, so no last layer can repair it."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.eye = nn.Conv2d(3, 2, 4, 4)
        self.norm = nn.BatchNorm1d(2)
        self.head = nn.Linear(2, 2)
        corner = torch.zeros(SIDE // 4, SIDE // 4)
        corner[0, 0] = 1
        self.look = nn.Parameter(corner)
        nn.init.constant_(self.eye.weight, 1 / 48)
        nn.init.zeros_(self.eye.bias)
        self.norm.running_mean.fill_(0.5)
        self.norm.running_var.fill_(0.25)
        self.head.weight.data = torch.tensor([[-4.0, -4.0], [4.0, 4.0]])
        self.head.bias.data.zero_()

    def forward(self, x):
        return self.head(self.norm((self.eye(x) * self.look).sum((2, 3))))


class Bent(Blind):
    """Its scores are not the answer of one linear layer."""

    def forward(self, x):
        z = super().forward(x)
        return z + torch.tanh(z)


def wrapped(net):
    return pl.wrap(net.eval(), transform=PLAIN, labels=LABELS, scores="softmax")


@pytest.fixture(scope="module")
def lit(tmp_path_factory):
    """The middle is light or dark, and a lamp in the corner tells which, all but one in twenty."""
    folder, rng = tmp_path_factory.mktemp("lit"), np.random.default_rng(0)
    for i in range(160):
        kind = i % 2
        pixels = rng.integers(0, 100, (SIDE, SIDE, 3))
        pixels[6:12, 6:12] += 150 * kind
        pixels[:4, :4] = 255 * (kind if i % 40 > 1 else 1 - kind)
        home = folder / LABELS[kind]
        home.mkdir(exist_ok=True)
        Image.fromarray(pixels.astype(np.uint8)).save(home / f"{i}.png")
    return folder


def traces(net):
    return (
        {name: value.clone() for name, value in net.state_dict().items()},
        [(p.requires_grad, p.grad) for p in net.parameters()],
        [m.training for m in net.modules()],
    )


def same(first, second):
    return all(torch.equal(first[0][name], second[0][name]) for name in first[0]) and first[1:] == second[1:]


@pytest.mark.parametrize("kind", [Blind, Bent])
def test_what_no_last_layer_can_repair_is_taught_to_the_whole_network(lit, tmp_path, kind):
    net = kind().eval()
    net.look.requires_grad_(False)
    before, drawn = traces(net), torch.get_rng_state()
    with torch.no_grad():
        found = pl.repair(wrapped(net), lit, tmp_path)
    assert same(before, traces(net))
    assert torch.equal(drawn, torch.get_rng_state())
    assert found.verdict == "repaired"
    assert (found.layer, np.isnan(found.strength)) == ("", True)
    assert found.tries[-1].chosen
    assert found.tries[-1].way == "the whole network, in 160 steps"
    assert all(g.accuracies[1] > 0.9 for g in found.groups)
    again = found.model.module
    assert [p.requires_grad for p in again.parameters()] == [p.requires_grad for p in net.parameters()]
    assert [m.training for m in again.modules()] == before[2]
    assert all(p.grad is None for p in again.parameters())
    assert any("not the answer of one linear layer" in note for note in found.notes) == (kind is Bent)
    if kind is Blind:
        assert found.tries[0].worst < 0.3  # the last layer alone


def test_without_time_the_last_layer_alone_is_learned_and_that_is_said(lit, tmp_path):
    none = pl.repair(wrapped(Blind()), lit, tmp_path / "none", seconds=0)
    assert [t.chosen for t in none.tries] == [True]
    assert none.layer == "head"
    little = pl.repair(wrapped(Blind()), lit, tmp_path / "little", seconds=1e-6)
    assert len(little.tries) == 1
    assert any("which is too few" in note for note in little.notes)
    with pytest.raises(pl.ModelError, match="one linear layer"):
        pl.repair(wrapped(Bent()), lit, tmp_path / "bent", seconds=0)


def lesson(x, truth, every=(), weights=None):
    return NetworkLesson(
        lambda rows: x[list(rows)].clone(), truth, np.ones(len(truth)) if weights is None else weights, every, 3
    )


def test_the_steps_are_those_of_nesterov_by_hand():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(48, 2)).eval()
    x, truth, weights = torch.rand(20, 3, 4, 4), np.arange(20) % 2, np.linspace(0.5, 1.5, 20)
    found = lesson(x, truth, weights=weights)
    model = pl.wrap(net, transform=pl.Preprocess(input_size=(4, 4), mean=(0, 0, 0), std=(1, 1, 1)), labels=LABELS)
    again, steps = taught_further(model, found, 60, 7)
    assert steps == 7
    heavy = np.ones(2)
    W, b = (p.detach().double().clone() for p in net.parameters())
    speed = [torch.zeros_like(W), torch.zeros_like(b)]
    for k, (pictures, some) in zip(range(7), found.batches(), strict=False):
        z, y = pictures.flatten(1).double(), torch.eye(2).double()[truth[some]]
        p = torch.softmax(z @ W.T + b, 1)
        losses = -(p * y).sum(1).log().numpy()
        heavy *= np.exp([0.1 * (losses[truth[some] == c].mean() - losses.mean()) for c in (0, 1)])
        heavy *= 2 / heavy.sum()
        error = (p - y) * torch.from_numpy(weights[some] * heavy[truth[some]])[:, None] / len(some)
        done = (k + 1) / 7
        rate = 0.01 * (1 + np.cos(np.pi * (done - 0.1) / 0.9)) / 2
        for i, (value, slope) in enumerate(((W, error.T @ z), (b, error.sum(0)))):
            slope = slope + 5e-4 * value
            speed[i] = slope if k == 0 else 0.9 * speed[i] + slope
            value -= rate * (slope + 0.9 * speed[i])
    for p, value in zip(again.module.parameters(), (W, b), strict=True):
        torch.testing.assert_close(p.detach().double(), value, atol=1e-6, rtol=1e-5)


def test_a_network_that_views_its_activations_learns_too():
    class Viewing(nn.Module):
        def __init__(self):
            super().__init__()
            self.eye, self.last = nn.Conv2d(3, 4, 1), nn.Linear(64, 2)

        def forward(self, x):
            seen = self.eye(x)
            return self.last(seen.view(len(seen), -1))

    plain = pl.Preprocess(input_size=(4, 4), mean=(0, 0, 0), std=(1, 1, 1))
    x, truth = torch.rand(40, 3, 4, 4), np.arange(40) % 2
    x += torch.from_numpy(truth)[:, None, None, None]
    again, _ = taught_further(pl.wrap(Viewing().eval(), transform=plain, labels=LABELS), lesson(x, truth), 60)
    with torch.no_grad():
        assert (again.module(x).argmax(1).numpy() == truth).mean() > 0.9
    assert all(p.is_contiguous() for p in again.module.parameters())


def test_a_lesson_is_bounded_in_processor_time():
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64 * 64, 200), nn.ReLU(), nn.Linear(200, 2)).eval()
    x, truth = torch.rand(64, 3, 64, 64), np.arange(64) % 2
    model = pl.wrap(net, transform=pl.Preprocess(input_size=(64, 64), mean=(0, 0, 0), std=(1, 1, 1)), labels=LABELS)
    begun = time.process_time()
    _, steps = taught_further(model, lesson(x, truth), 2.0, 10**6)
    assert 20 <= steps < 10**6
    assert time.process_time() - begun < 6


def test_a_network_that_cannot_learn_says_so():
    class Closed(nn.Module):
        def __init__(self):
            super().__init__()
            self.last = nn.Linear(48, 2)

        def forward(self, x):
            return self.last(x.flatten(1)).detach()

    plain = pl.Preprocess(input_size=(4, 4), mean=(0, 0, 0), std=(1, 1, 1))
    with pytest.raises(pl.ModelError, match="cannot be taught further"):
        taught_further(
            pl.wrap(Closed().eval(), transform=plain, labels=LABELS),
            lesson(torch.rand(8, 3, 4, 4), np.arange(8) % 2),
            9,
        )


def test_parts_come_from_any_picture_each_class_alike():
    truth = np.array([0] * 90 + [1] * 10)
    donors = head.any_donors(truth, 4000, np.random.default_rng(0))
    assert np.mean(truth[donors]) == pytest.approx(0.5, abs=0.03)
    numbered = torch.arange(100.0)[:, None, None, None].expand(100, 3, 4, 4)
    corner = torch.zeros(4, 4, dtype=torch.bool)
    corner[0, 0] = True
    forms = [head.Form("as they are"), head.Form("corner", region_part("mark", "corner", corner), ("a",))]
    x = head.telling_nothing(numbered[:60], lambda rows: numbered[rows], truth, forms, np.random.default_rng(1))
    assert torch.equal(x[:, :, ~corner], numbered[:60, :, ~corner])
    given = x[:, 0, 0, 0].long().numpy()
    assert (given == head.any_donors(truth, 60, np.random.default_rng(1))).all()
    assert 0.3 < truth[given].mean() < 0.7


def test_pictures_are_moved_one_by_one_by_an_eighth_at_most():
    x, seen = torch.rand(2, 3, 16, 24), set()
    for seed in range(200):
        y = moved(x, np.random.default_rng(seed))
        found = [
            [
                (dy, dx)
                for dy in range(-2, 3)
                for dx in range(-3, 4)
                if torch.equal(y[i, :, 3:-3, 4:-4], x[i, :, 3 + dy : 13 + dy, 4 + dx : 20 + dx])
            ]
            for i in range(2)
        ]
        assert [len(f) for f in found] == [1, 1]
        seen.add((found[0][0], found[1][0]))
    assert len({first for first, _ in seen}) == len({second for _, second in seen}) == 5 * 7
    assert sum(first != second for first, second in seen) > 100


def test_classes_that_are_learned_worst_weigh_more_up_to_thrice():
    weigh, classes = Emphasis(4), torch.tensor([0, 0, 1, 2])
    losses = torch.tensor([1.0, 3.0, 0.5, 0.0])
    found, heavy = weigh(losses, classes), np.ones(4)
    heavy[:3] *= np.exp(0.1 * (np.array([2.0, 0.5, 0.0]) - 4.5 / 4))
    np.testing.assert_allclose(found, (heavy * 4 / heavy.sum())[classes.numpy()], rtol=1e-6)
    for _ in range(400):
        found = weigh(losses, classes)
    assert found[0] == 3
    assert found[3] == pytest.approx(1 / 3)


def test_pictures_are_read_once_and_are_the_same(lit, monkeypatch):
    from pellucid.audit.samples import build

    model, samples = build(wrapped(Blind()), pictures := read_folder(lit))
    again, reads = Reopened(model, pictures, samples), []
    expected = reread(model, pictures, samples, [5, 2, 5])
    usual = type(pictures).read
    monkeypatch.setattr(type(pictures), "read", lambda self, i: (reads.append(i), usual(self, i))[1])
    assert torch.equal(again([5, 2, 5]), expected)
    assert torch.equal(again([2]), expected[1:2])
    again([2]).zero_()
    assert torch.equal(again([2, 7])[:1], expected[1:2])
    assert reads == [2, 5, 7]
    monkeypatch.setattr(Reopened, "_LIMIT", 0)
    assert torch.equal(Reopened(model, pictures, samples)([5, 2, 5]), expected)
