import itertools
import warnings

import numpy as np
import pytest
import scipy.optimize
from sklearn.exceptions import SkipTestWarning
from sklearn.utils.estimator_checks import check_estimator

from pellucid.concepts import DICTIONARIES, NMF, PCA, KMeans, Random, SemiNMF, TopKSAE, get_dictionary, restore
from pellucid.concepts.factorise import nonnegative_codes
from pellucid.concepts.matching import matched, stability
from pellucid.errors import DataError, MethodError

K, C, N = 12, 24, 3000
SAE = {"count": 2 * K, "active": 3, "epochs": 15}  # more concepts than were planted, as they are used
QUICK = {"sae": SAE, "batch-sae": SAE | {"active": 2}}
ALL = list(DICTIONARIES)


def planted(name, seed=100):
    """Activations made of known directions, few at a place, with a little noise: `(A, directions)`."""
    generator = np.random.default_rng(seed)
    D = generator.standard_normal((K, C))
    if name == "nmf":
        D = np.abs(D) * (generator.random((K, C)) < 0.3) + 1e-3
    D /= np.linalg.norm(D, axis=1, keepdims=True)
    U = (1 + generator.exponential(0.5, (N, K))) * (generator.random((N, K)) < 1.5 / K)
    if name in ("kmeans", "semi-nmf"):  # which are made for one concept at a place
        U = (1 + generator.exponential(0.5, (N, 1))) * np.eye(K)[generator.integers(K, size=N)]
    if name == "pca":  # orthogonal, of different strength
        D = np.linalg.qr(D.T)[0].T
        U = generator.standard_normal((N, K)) * np.arange(K, 0, -1)
    A = U @ D + 0.02 * generator.standard_normal((N, C))
    return (np.maximum(A, 0) if name == "nmf" else A).astype(np.float32), D


def noise(name, seed=9):
    A = np.random.default_rng(seed).standard_normal((N, C)).astype(np.float32)
    return np.abs(A) if name == "nmf" else A


@pytest.fixture(scope="module")
def fitted():
    """Every kind fitted to data planted for it."""
    return {n: (get_dictionary(n, **({"count": K} | QUICK.get(n, {}))).fit(planted(n)[0]), *planted(n)) for n in ALL}


@pytest.mark.parametrize("name", [n for n in ALL if n != "random"])
def test_a_planted_dictionary_is_found_and_noise_holds_none(name, fitted):
    found, _, D = fitted[name]
    _, cosine = matched(D, found.components_, signed=not found.nonnegative)
    assert cosine.mean() >= 0.9
    assert np.median(cosine) >= 0.95
    of_noise = get_dictionary(name, **({"count": K} | QUICK.get(name, {}))).fit(noise(name))
    _, chance = matched(D, of_noise.components_, signed=not found.nonnegative)
    assert chance.mean() < 0.65


def test_random_directions_find_nothing(fitted):
    found, A, D = fitted["random"]
    assert matched(D, found.components_, signed=True)[1].mean() < 0.6
    rows = A[:500]
    least = rows - (found.offset_ + (rows - found.offset_) @ np.linalg.pinv(found.components_) @ found.components_)
    np.testing.assert_allclose(rows - found.decode(found.encode(rows)), least, atol=1e-4)


@pytest.mark.parametrize("name", ALL)
def test_codes_decode_linearly_and_are_kept(name, fitted):
    found, A, _ = fitted[name]
    U = found.encode(A[:300])
    assert U.shape == (300, found.count)
    assert U.dtype == np.float32
    np.testing.assert_allclose(found.decode(U), U @ found.components_ + found.offset_, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(found.components_, axis=1), 1, atol=1e-5)
    assert (U >= 0).all() or not found.nonnegative
    again = restore(*found.state())
    np.testing.assert_array_equal(again.encode(A[:300]), U)
    assert again.get_params() == found.get_params()
    np.testing.assert_allclose(found.encode(A[7:8]), U[7:8], atol=2e-4 * max(1, float(U.max())))  # alone as in company


@pytest.mark.parametrize("name", ALL)
def test_one_seed_one_answer(name):
    A = planted(name, seed=3)[0][:400]
    options = {"epochs": 2} if "sae" in name else {}
    first, again = (get_dictionary(name, count=5, seed=1, **options).fit(A) for _ in range(2))
    np.testing.assert_array_equal(first.components_, again.components_)


def test_codes_are_the_non_negative_least_squares():
    generator = np.random.default_rng(0)
    D, A = generator.standard_normal((6, 10)), generator.standard_normal((20, 10))
    truth = np.stack([scipy.optimize.nnls(D.T, a)[0] for a in A])
    np.testing.assert_allclose(nonnegative_codes(A, D), truth, atol=1e-3)


def test_semi_nmf_never_loses_ground():
    A = planted("semi-nmf")[0][:600].astype(np.float64)

    def loss(iterations):
        found = SemiNMF(count=4, iterations=iterations, tolerance=0).fit(A)
        return ((A - found.decode(found.encode(A))) ** 2).sum()

    losses = [loss(i) for i in (1, 2, 4, 8, 16)]
    assert all(b <= a * (1 + 1e-4) for a, b in itertools.pairwise(losses))


def test_pca_is_the_singular_value_decomposition():
    A = planted("pca")[0]
    found = PCA(count=4).fit(A)
    truth = np.linalg.svd(A - A.mean(0), full_matrices=False)[2][:4]
    np.testing.assert_allclose(np.abs((found.components_ * truth).sum(1)), 1, atol=1e-4)
    codes = found.encode(A)
    assert (((codes - codes.mean(0)) ** 3).mean(0) >= 0).all()  # each points to its long tail


def test_k_means_codes_are_the_nearest_centre(fitted):
    found, A, _ = fitted["kmeans"]
    centres = found.components_ * found.lengths_[:, None]
    nearest = ((A[:200, None] - centres) ** 2).sum(2).argmin(1)
    np.testing.assert_allclose(found.decode(found.encode(A[:200])), centres[nearest], atol=1e-5)


def test_matching_is_the_best_of_all_pairings():
    from itertools import permutations

    generator = np.random.default_rng(1)
    a, b = generator.standard_normal((4, 6)), generator.standard_normal((5, 6))
    cosine = (a / np.linalg.norm(a, axis=1)[:, None]) @ (b / np.linalg.norm(b, axis=1)[:, None]).T
    best = max(sum(cosine[i, p[i]] for i in range(4)) for p in permutations(range(5), 4))
    partners, found = matched(a, b)
    assert found.sum() == pytest.approx(best, abs=1e-6)
    np.testing.assert_allclose(found, cosine[np.arange(4), partners], atol=1e-6)
    assert matched(a, -a, signed=True)[1].min() == pytest.approx(1)


def test_concepts_of_structure_are_stable_and_those_of_noise_are_not(fitted):
    found, A, _ = fitted["ica"]
    assert stability(found, A).min() > 0.95
    of_noise = get_dictionary("ica", count=K).fit(noise("ica"))
    assert stability(of_noise, noise("ica")).mean() < 0.7


@pytest.mark.parametrize("kind", [NMF, SemiNMF, PCA, KMeans, Random, TopKSAE])
def test_scikit_learn_accepts_them_as_estimators(kind):
    options = {"epochs": 2} if kind is TopKSAE else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SkipTestWarning)
        failed = check_estimator(kind(count=2, **options), on_fail=None)
    wrong = {r["check_name"]: str(r["exception"]) for r in failed if r["status"] == "failed"}
    assert wrong == {}


def test_dead_units_are_revived():
    """Data of one direction first kill most units; each epoch some take what is still unexplained."""
    A, _ = planted("sae")
    found = TopKSAE(count=80, active=2, epochs=8).fit(A)
    assert found.dead_[0] > 0
    assert found.dead_[-1] < found.dead_[0]
    assert found.losses_[-1] < found.losses_[0]
    assert len(found.seconds_) == 8


def test_a_revived_unit_takes_what_was_reconstructed_worst():
    import torch

    from pellucid.concepts.autoencoder import _Net

    net = _Net.start(4, 3, torch.Generator().manual_seed(0))
    adam = torch.optim.Adam(net.parameters)
    (net.units(torch.ones(2, 3)) @ net.V + net.v).sum().backward(inputs=net.parameters)
    adam.step()
    before = net.V.detach().clone()
    net.revive(torch.tensor([1, 3]), torch.tensor([[0.0, 5.0, 0.0], [0.0, 0.0, -2.0]]), adam)
    torch.testing.assert_close(net.V[[1, 3]].detach(), torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, -1.0]]))
    torch.testing.assert_close(net.V[[0, 2]].detach(), before[[0, 2]])
    assert (net.units(torch.tensor([[0.0, 1.0, 0.0]]))[0, 1] > 0).item()
    assert not adam.state[net.W]["exp_avg"][[1, 3]].any()
    assert adam.state[net.W]["exp_avg"][[0, 2]].any()


def test_sparse_autoencoders_keep_few_concepts_a_place(fitted):
    found, A, _ = fitted["sae"]
    assert ((found.encode(A) > 0).sum(1) <= 3).all()
    found, A, _ = fitted["batch-sae"]
    assert 1 <= (found.encode(A) > 0).sum(1).mean() <= 3


def test_a_channel_that_never_varies_does_no_harm():
    A = planted("sae")[0][:500].copy()
    A[:, 3] = 7.0
    for name in ALL:
        data = np.abs(A) if name == "nmf" else A
        found = get_dictionary(name, count=3, **({"epochs": 2} if "sae" in name else {})).fit(data)
        assert np.isfinite(found.encode(data)).all(), name
        assert np.isfinite(found.decode(found.encode(data))).all(), name


@pytest.mark.parametrize(
    ("make", "data", "said"),
    [
        (lambda: NMF(count=2), -np.eye(4), "use semi-nmf or sae"),
        (lambda: PCA(count=9), np.eye(4), "ask for fewer, or give more pictures"),
        (lambda: PCA(count=0), np.eye(4), "at least 1"),
        (lambda: KMeans(count=2), np.ones((5, 3)), "nothing to find: choose another layer"),
        (lambda: TopKSAE(count=2, epochs=0), np.eye(4), "at least 1"),
    ],
)
def test_bad_data_is_one_sentence(make, data, said):
    with pytest.raises(DataError, match=said):
        make().fit(data)


def test_unknown_names_get_near_misses():
    with pytest.raises(MethodError, match="did you mean 'semi-nmf'"):
        get_dictionary("seminmf")
    with pytest.raises(MethodError, match="no parameter 'k'"):
        get_dictionary("nmf", k=3)
