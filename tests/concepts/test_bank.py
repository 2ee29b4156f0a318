import csv
import json

import numpy as np
import pytest
import torch
from torch import nn

import pellucid as pl
from helpers.cases import PLAIN, save
from helpers.nets import noise
from pellucid.concepts import Dictionary, Random
from pellucid.concepts.bank import find
from pellucid.concepts.effect import effect, importance
from pellucid.concepts.quality import Reconstruction, monosemanticity
from pellucid.engine.swap import Swap
from pellucid.errors import DataError, LayerError, MediaError, MethodError, StorageError
from pellucid.media import read_folder
from pellucid.models.features import extract
from pellucid.models.places import Places
from pellucid.models.sources import wrap
from pellucid.numerics.statistics import adjusted, bootstrap_mean
from pellucid.render import figure_png
from pellucid.results.concepts import load_concepts

NAMES = ("blue", "green", "red", "yellow")  # as folders are ordered
COLOURS = np.array([[30, 40, 220], [30, 200, 40], [220, 30, 30], [210, 200, 40]], np.uint8)


GREY = 118


def colour_net():
    """Layer 3 says in 12 channels, at each of 8 x 8 places, how much there is of each of four colours; linear behind.

    Layer 2 is the same before its ReLU, less a constant, and so has both signs.
    """
    net = nn.Sequential(
        nn.Conv2d(3, 4, 8, 8), nn.ReLU(), nn.Conv2d(4, 12, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(12, 4),
    )  # fmt: skip
    mix = torch.rand(12, 4, generator=torch.Generator().manual_seed(0))
    away = torch.from_numpy(COLOURS / 255 - GREY / 255).float()
    towards = away / away.square().sum(1, keepdim=True)
    with torch.no_grad():
        net[0].weight.copy_(towards[:, :, None, None].expand(4, 3, 8, 8) / 64)
        net[0].bias.copy_(-towards.sum(1) * GREY / 255 - 0.5)
        net[2].weight.copy_(mix[:, :, None, None])
        net[2].bias.fill_(-1e-3)
        net[6].weight.copy_(torch.linalg.pinv(mix) * 30)
        net[6].bias.zero_()
    return net.eval()


def model():
    return wrap(colour_net(), transform=PLAIN, labels=NAMES, name="colours")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Pictures of one colour each on grey, the colour in one corner."""
    home = tmp_path_factory.mktemp("colours")
    generator = np.random.default_rng(0)
    for k, name in enumerate(NAMES):
        for i in range(6):
            picture = np.full((64, 64, 3), GREY, np.uint8)
            y, x = generator.integers(0, 5, 2) * 8
            picture[y : y + 24, x : x + 24] = COLOURS[k]
            save(home / name / f"{i}.png", picture)
    return home


@pytest.fixture(scope="module")
def found(folder):
    return pl.concepts(model(), folder, "3", "nmf", count=4, cache=None)


def test_concepts_of_coloured_squares_are_the_colours(found, folder):
    """Each concept's pictures are of one colour, its strongest place lies on the square, and its class rises by it."""
    given = read_folder(folder)
    leading = [int(found.exemplars[k, 0]) for k in range(4)]
    assert sorted(given.labels[leading].tolist()) == [0, 1, 2, 3]
    for k in range(4):
        colours = given.labels[found.exemplars[k][found.exemplars[k] >= 0]]
        own = int(given.labels[leading[k]])
        assert (colours[:6] == own).all()
        y, x = divmod(int(found.cells[k, 0]), 8)
        assert (given.read(leading[k]).pixels[8 * y + 4, 8 * x + 4] == COLOURS[own]).all()
        by_class = {g.name: g.values[k] for g in found.groups}
        assert max(by_class, key=by_class.get) == given.classes[own]
    assert found.standing.r2 > 0.9 > found.random.r2
    assert found.standing.agreement == 1
    assert found.untouched == 1
    assert found.standing.accuracy == 1
    assert found.standing.monosemanticity > found.random.monosemanticity


def test_random_directions_keep_less(folder):
    """The baseline is worse in every figure, on more channels than concepts."""
    features = extract(model(), read_folder(folder), "3", pool=None, cache=None)
    bank = find(model(), features, "nmf", count=3, stable=False)
    again = find(model(), features, "random", count=3, seed=5, stable=False)
    assert bank.standing.r2 > bank.random.r2
    assert bank.standing.score_r2 > bank.random.score_r2
    assert again.standing.score_r2 < bank.standing.score_r2


def test_importance_is_exact_where_the_tail_is_linear(folder):
    """Removing a concept from the activation lowers the score by just its importance."""
    net = model()
    x = torch.stack([net.preprocess(read_folder(folder).read(i))[0] for i in (0, 8, 20)])
    with torch.no_grad():
        A = net.module[:4](x).movedim(1, -1)
    words = pl.concepts.NMF(count=3).fit(A.reshape(-1, 12).numpy())
    scores, shares = importance(net, x, Places(net.module, "3"), words)
    U = torch.from_numpy(words.encode(A.reshape(-1, 12).numpy())).reshape(3, 8, 8, 3)
    top = scores.argmax(1)
    for k in range(3):
        without = A - U[..., k : k + 1] * torch.from_numpy(words.components_[k])
        with torch.no_grad():
            y = net.module[4:](without.movedim(-1, 1))
        np.testing.assert_allclose(scores[range(3), top] - y[range(3), top].numpy(), shares[:, k], atol=1e-4)


def test_a_swap_changes_the_layer_where_it_runs_last():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.act, self.one, self.two = nn.ReLU(), nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)

        def forward(self, x):
            return self.act(self.two(self.act(self.one(x)))).mean((2, 3))

    net, x = Twice().eval(), noise(2, 3, 8, 8)
    with torch.no_grad():
        inner = net.two(net.act(net.one(x))).relu()
    with Swap(net, "act") as swap:
        torch.testing.assert_close(swap(x, lambda A: A * 2), (inner * 2).mean((2, 3)))
        torch.testing.assert_close(swap(x), inner.mean((2, 3)))
        assert swap.cost.forwards == 6
    assert not net.act._forward_hooks
    with pytest.raises(LayerError, match="no layer 'nope'"), Swap(net, "nope"):
        pass


def test_effect_equals_a_plain_loop(folder):
    net, given = model(), read_folder(folder)
    features = extract(net, given, "3", pool=None, cache=None)
    words = Random(count=2, seed=3).fit(features.tokens())
    does = effect(net, given, "3", words, limit=5, seed=2)
    assert len(does.pictures) == 5
    for row, index in enumerate(does.pictures):
        A = features.values[index]
        said = words.decode(words.encode(A.reshape(-1, 12))).reshape(A.shape)
        with torch.no_grad():
            y = net.module[4:](torch.from_numpy(said).movedim(-1, 0)[None])[0]
        np.testing.assert_allclose(does.kept["concepts"][row], y, atol=1e-4)
        np.testing.assert_allclose(does.scores[row], features.outputs[index], atol=1e-4)


def brute_monosemanticity(E, R):
    E = E / np.linalg.norm(E, axis=1, keepdims=True)
    R = np.maximum(R, 0)
    R = (R - R.min(0)) / np.where(np.ptp(R, axis=0) > 0, np.ptp(R, axis=0), 1)
    out = []
    for r in R.T:
        pairs = [(r[i] * r[j], E[i] @ E[j]) for i in range(len(E)) for j in range(i + 1, len(E))]
        total = sum(w for w, _ in pairs)
        out.append(sum(w * s for w, s in pairs) / total if total > 0 else np.nan)
    return np.array(out)


def test_closed_form_monosemanticity_equals_the_pairs():
    generator = np.random.default_rng(0)
    E, R = generator.standard_normal((30, 5)), generator.standard_normal((30, 4))
    R[:, 3] = 0
    R[2, 3] = 1  # one picture only: no pair
    np.testing.assert_allclose(monosemanticity(E, R), brute_monosemanticity(E, R), atol=1e-12)
    alike = np.tile(E[:1], (30, 1))
    assert monosemanticity(alike, R)[0] == pytest.approx(1)


def test_reconstruction_adds_up_over_chunks():
    generator = np.random.default_rng(0)
    A = generator.standard_normal((50, 6)).astype(np.float32)
    U = (generator.random((50, 3)) * (generator.random((50, 3)) < 0.5)).astype(np.float32)
    U[:, 2] = 0
    B = A + 0.3 * generator.standard_normal((50, 6)).astype(np.float32)
    kept = Reconstruction()
    for part in np.array_split(np.arange(50), 7):
        kept.add(A[part], U[part], B[part])
    assert kept.r2 == pytest.approx(1 - ((A - B) ** 2).sum() / ((A - A.mean(0)) ** 2).sum(), abs=1e-5)
    assert kept.relative_error == pytest.approx(np.linalg.norm(A - B) / np.linalg.norm(A), abs=1e-5)
    assert kept.concepts_a_place == pytest.approx((U > 0).sum(1).mean())
    assert kept.dead == pytest.approx(1 / 3)


def test_bootstrap_covers_the_mean():
    generator = np.random.default_rng(0)
    covered = 0
    for trial in range(200):
        rows = generator.exponential(1, (40, 1))
        mean, low, high = bootstrap_mean(rows, seed=trial)
        assert mean[0] == pytest.approx(rows.mean())
        covered += low[0] <= 1 <= high[0]
    assert 0.86 <= covered / 200 <= 0.99
    assert np.isnan(bootstrap_mean(np.ones((1, 2)))[1]).all()


def test_adjusted_p_values_are_those_of_the_papers():
    from scipy.stats import false_discovery_control

    p = np.array([0.01, 0.04, 0.03, 0.005, 0.9])
    np.testing.assert_allclose(adjusted(p, "bh"), false_discovery_control(p))
    np.testing.assert_allclose(adjusted(p, "holm"), [0.04, 0.09, 0.09, 0.025, 0.9])  # by hand
    np.testing.assert_allclose(adjusted(p, "none"), p)


def test_saved_concepts_come_back_the_same(found, tmp_path):
    files = found.save(tmp_path)
    assert [f.suffix for f in files] == [".npz", ".json", ".csv", ".html", ".png"]
    again = load_concepts(files[0])
    A = np.abs(np.random.default_rng(0).standard_normal((20, 12))).astype(np.float32)
    np.testing.assert_array_equal(again.dictionary.encode(A), found.dictionary.encode(A))
    np.testing.assert_array_equal(again.maps, found.maps)
    assert again.table() == found.table()
    assert pl.read(files[1]).table() == found.table()
    assert again.standing == found.standing
    assert again.shown == found.shown
    assert figure_png(again.figure(top=1, pictures=2)) == figure_png(found.figure(top=1, pictures=2))
    with files[2].open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 4 * 5
    page = files[3].read_text()
    assert "http" not in page.replace("http-equiv", "")  # the page's own policy
    assert page.count("<section") == 4
    files[1].write_text(files[1].read_text().replace('"count": 24', '"count": 25'))
    with pytest.raises(StorageError, match="was changed"):
        load_concepts(files[1])


def test_verify_finds_the_same_concepts_and_sees_changes(found, tmp_path, folder):
    files = found.save(tmp_path)
    assert pl.verify(files[0], model=model()).status in ("same", "within tolerance")
    other = model()
    with torch.no_grad():
        other.module[0].weight[0] *= 2
    changed = pl.verify(files[0], model=other)
    assert changed.status == "different"
    assert "weights" in str(changed)


def test_concepts_of_a_list_are_found_again_from_their_record(tmp_path, folder):
    sources = list(read_folder(folder).sources)
    made = pl.concepts(model(), sources, "3", "pca", count=3, stable=False, limit=4, cache=None)
    file = made.save(tmp_path / "out")[0]
    assert pl.verify(file, model=model()).status in ("same", "within tolerance")
    other = pl.verify(file, model=model(), inputs=sources[1:])
    assert "the pictures are not those of the record" in other.reasons
    held = pl.concepts(model(), read_folder(folder), "3", "pca", count=3, stable=False, limit=4, cache=None)
    with pytest.raises(StorageError, match=r"only in memory: give them with pl\.verify\(file, inputs=\.\.\.\)"):
        pl.verify(held.save(tmp_path / "held")[0], model=model())


def test_a_concept_has_a_heat_map_in_any_picture(found, folder):
    given = read_folder(folder)
    k = next(k for k in range(4) if given.labels[found.exemplars[k, 0]] == 0)
    blue = given.sources[int(np.flatnonzero(given.labels == 0)[-1])]
    e = found.heatmap(model(), blue, k)
    assert tuple(e.attribution.shape) == (1, 8, 8)
    hot = e.heatmap()[0].numpy()
    inside = (given.read(int(np.flatnonzero(given.labels == 0)[-1])).pixels == COLOURS[0]).all(-1)
    assert hot[inside].mean() > 5 * abs(hot[~inside].mean())
    with pytest.raises(MethodError, match="no concept 9"):
        found.heatmap(model(), blue, 9)


def test_crops_are_pictures_of_their_own(folder):
    from pellucid.media.crops import Crops, around

    crops = Crops(read_folder(folder), share=0.5, along=2)
    assert len(crops) == 96
    whole = read_folder(folder).read(3).pixels
    for place, (y, x) in enumerate(((0, 0), (0, 32), (32, 0), (32, 32))):
        np.testing.assert_array_equal(crops.read(12 + place).pixels, whole[y : y + 32, x : x + 32])
    assert crops.labels[12] == 0
    assert crops.digest(12) != crops.digest(13)
    geometry = PLAIN(read_folder(folder).read(0))[1]
    assert around(geometry, (8, 8), 0, 0.25) == (0, 0, 16, 16)
    assert around(geometry, (8, 8), 63, 0.25) == (48, 48, 64, 64)
    assert around(geometry, (8, 8), 27, 0.25) == (20, 20, 36, 36)
    with pytest.raises(MediaError, match="share in"):
        Crops(read_folder(folder), share=0)


def test_bad_input_is_one_sentence(folder, tmp_path):
    net = model()
    for call, error, said in [
        (lambda: pl.concepts(net, tmp_path), MediaError, "holds no picture"),
        (lambda: pl.concepts(net, folder, "9", cache=None), LayerError, "no layer '9'"),
        (lambda: pl.concepts(net, folder, "2", "nmf", cache=None), DataError, "Layer '2' on .*use semi-nmf or sae"),
        (lambda: pl.concepts(net, folder, "3", count=10**6, cache=None), DataError, "ask for fewer"),
        (lambda: pl.concepts(net, folder, "3", "nmff", cache=None), MethodError, "did you mean 'nmf'"),
        (lambda: pl.concepts(net, folder, "3", "nmf", active=3, cache=None), MethodError, "no parameter 'active'"),
    ]:
        with pytest.raises(error, match=said):
            call()
    assert pl.concepts(net, folder, "2", count=2, cache=None, stable=False).dictionary.name == "semi-nmf"


def test_of_a_signed_block_nmf_takes_the_last_layer_inside_that_is_not(folder, tmp_path):
    plain = colour_net()
    inner = nn.Sequential(plain[0], plain[1], nn.Conv2d(plain[0].out_channels, 4, 1))
    with torch.no_grad():
        inner[2].weight.uniform_(-1, 1, generator=torch.Generator().manual_seed(0))
    net = wrap(nn.Sequential(inner, nn.AdaptiveAvgPool2d(1), nn.Flatten()), transform=PLAIN)
    found = pl.concepts(net, folder, "0", "nmf", count=2, cache=None, stable=False)
    assert found.layer == "0.1"  # the rectifier; the convolution behind it is signed again
    assert any("'0' has negative values" in note and "'0.1'" in note for note in found.notes)
    same = pl.concepts(net, folder, "0.1", "nmf", count=2, cache=None, stable=False)
    np.testing.assert_array_equal(found.dictionary.components_, same.dictionary.components_)
    assert not any("negative" in note for note in same.notes)
    found.save(tmp_path)
    assert pl.verify(next(tmp_path.glob("*.json")), model=net, inputs=folder).status == "same"


def test_a_model_without_class_scores_still_has_concepts(folder):
    net = wrap(nn.Sequential(*list(colour_net())[:4]), transform=PLAIN)
    found = pl.concepts(net, folder, "3", count=3, cache=None, stable=False)
    assert found.whole is None
    assert any("no class scores" in note for note in found.notes)
    assert found.png()
    assert json.dumps(found.table(), allow_nan=True)


def test_finding_concepts_leaves_no_trace(folder):
    from engine.test_leave_no_trace import busy, state

    net, x = busy()
    wrapped = wrap(net, transform=PLAIN)
    before = state(net, x)
    pl.concepts(wrapped, folder, "tail", count=2, cache=None)
    assert state(net, x) == before

    class MineError(Exception):
        pass

    class Broken(Dictionary):
        name, about, paper = "broken", "", ""

        def _fit(self, A):
            self._keep(np.eye(A.shape[1])[:2])

        def _encode(self, A):
            raise MineError

    with pytest.raises(MineError):
        effect(wrapped, read_folder(folder), "tail", Broken(2).fit(np.eye(6)[:5]))
    assert state(net, x) == before
