import numpy as np
import pytest
import torch

import pellucid as pl
from concepts.test_bank import COLOURS, folder, model  # noqa: F401
from pellucid.concepts.craft import craft_importance, refine, sobol_importance
from pellucid.errors import DataError, MethodError
from pellucid.media import read_folder


def test_sobol_importance_of_an_additive_score_is_the_closed_form():
    """f = sum c_k m_k: S_k = c_k^2 / sum c^2, and no more."""
    c = torch.tensor([3.0, -2.0, 1.0, 0.0], dtype=torch.double)
    found, error = sobol_importance(lambda m: m @ c, 4, rows=512)
    torch.testing.assert_close(found, c**2 / (c**2).sum(), atol=0.02, rtol=0)
    assert ((found - c**2 / (c**2).sum()).abs() <= 4 * error + 1e-9).all()


def test_sobol_importance_sees_concepts_that_matter_only_together():
    """f = m_0 m_1: Var f = 1/9 - 1/16 = 7/144 and E[Var(f | m_1)] = 1/3 * 1/12 = 4/144, so both indices are 4/7."""
    found, _ = sobol_importance(lambda m: m[:, 0] * m[:, 1], 3, rows=1024)
    torch.testing.assert_close(found, torch.tensor([4 / 7, 4 / 7, 0.0], dtype=torch.double), atol=0.03, rtol=0)


def test_craft_on_a_linear_tail_is_the_closed_form(folder):  # noqa: F811
    """Behind a linear tail the score is additive in the strengths, with the concepts' importance as coefficients."""
    from pellucid.concepts.effect import importance
    from pellucid.models.places import Places

    net = model()
    given = read_folder(folder)
    x = torch.stack([net.preprocess(given.read(i))[0] for i in (1, 13)])
    words = pl.concepts.NMF(count=4).fit(np.abs(np.random.default_rng(0).standard_normal((40, 12))))
    found = craft_importance(net, x, "3", words, rows=256)
    _, shares = importance(net, x, Places(net.module, "3"), words)
    np.testing.assert_allclose(found.each, shares**2 / (shares**2).sum(1, keepdims=True), atol=0.05)
    np.testing.assert_allclose(found.values, found.each.mean(0))
    assert found.cost.forwards > 0


def test_a_concept_falls_apart_in_an_earlier_layer(folder):  # noqa: F811
    net, given = model(), read_folder(folder)
    bank = pl.concepts(net, folder, "3", count=2, cache=None, stable=False)
    inside = refine(net, bank, 0, given, "1", count=2)
    assert inside.layer == "1"
    assert len(inside) == 2
    assert inside.count == (bank.exemplars[0] >= 0).sum()
    with pytest.raises(MethodError, match="no concept 5"):
        refine(net, bank, 5, given, "1")
    bank.exemplars[1, 1:] = -1
    with pytest.raises(DataError, match="give more pictures"):
        refine(net, bank, 1, given, "1")


def test_craft_on_crops_finds_the_colours(folder):  # noqa: F811
    found = pl.concepts(model(), folder, "3", "nmf", count=4, crops=2, cache=None, stable=False)
    assert found.record.input["count"] == 24
    assert found.count == 96
    assert found.standing.r2 > 0.9
    from pellucid.render.concept_tiles import exemplars

    for k in range(4):
        shown = list(exemplars(found, k, 5))
        assert len(shown) == 5
        colour = np.median(shown[0].crop.reshape(-1, 3), axis=0)
        assert np.abs(colour - COLOURS).sum(1).min() < 60 or np.ptp(shown[0].crop) > 100
