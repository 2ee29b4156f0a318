import numpy as np
import pytest
import torch

import pellucid as pl
from concepts.test_bank import folder, model  # noqa: F401
from pellucid.errors import MethodError
from pellucid.importance.concepts import ConceptPlayers
from pellucid.media import read_folder
from pellucid.models.targets import Class
from pellucid.numerics.games import exact_shapley
from pellucid.scoring.job import prepare


@pytest.fixture
def setting(folder):  # noqa: F811
    net = model()
    x = net.preprocess(read_folder(folder).read(8))[0][None]
    with torch.no_grad():
        A = net.module[:4](x).movedim(1, -1).reshape(-1, 12)
    words = pl.concepts.NMF(count=3).fit(np.abs(np.random.default_rng(0).standard_normal((40, 12))))
    return net, x, A, words


def test_a_game_of_concepts_is_a_plain_subtraction(setting):
    net, x, A, words = setting
    U, D = torch.from_numpy(words.encode(A.numpy())), torch.from_numpy(words.components_)
    players = ConceptPlayers(dictionary=words, layer="3")
    coalitions = torch.cartesian_prod(*[torch.arange(2.0)] * 3)
    with players.game(prepare(net, x, [Class(1), Class(2)])) as game:
        found = game.value(coalitions)
        assert game.names == ["concept 0", "concept 1", "concept 2"]
        torch.testing.assert_close(game.pictures["maps"], U.T.reshape(3, 8, 8))
    for row, coalition in enumerate(coalitions):
        left = A - (U * (1 - coalition)) @ D
        with torch.no_grad():
            y = net.module[4:](left.T.reshape(1, 12, 8, 8))[0]
        torch.testing.assert_close(found[row].float(), y[[1, 2]], atol=1e-4, rtol=1e-4)
    assert not any(m._forward_hooks for m in net.module.modules())


def test_behind_a_linear_tail_shapley_values_are_the_first_order(setting):
    net, x, _, words = setting
    players = ConceptPlayers(dictionary=words, layer="3", names=("a", "b", "c"))
    job = prepare(net, x, [Class(1)])
    with players.game(job) as game:
        shapley = exact_shapley(game.value, 3).values
    torch.testing.assert_close(shapley, players.first_order(job), atol=1e-4, rtol=1e-4)


def test_names_must_fit(setting):
    net, x, _, words = setting
    with (
        pytest.raises(MethodError, match="one for each"),
        ConceptPlayers(dictionary=words, layer="3", names=("a",)).game(prepare(net, x, [0])),
    ):
        pass


def test_importance_of_concepts_by_the_verb(setting, folder):  # noqa: F811
    net, _, _, words = setting
    players = ConceptPlayers(dictionary=words, layer="3", names=("a", "b", "c"))
    found = pl.importance(net, read_folder(folder).sources[8], players, "shapley")
    assert found.names == ["a", "b", "c"]
    assert found.features == "concepts"
    assert abs(found.efficiency_gap) < 1e-4
