"""`pellucid evaluate --suite`: the oracle on top, random order at chance, edges at or below."""

import pytest

ASKED = "srg,mask-auc,relevance-mass"


@pytest.mark.parametrize("suite", ["single", pytest.param("watermark", marks=pytest.mark.slow)])
def test_where_the_truth_is_known_it_wins(suite, run):
    done = run("evaluate", "--suite", suite, "--methods", "saliency", "--metrics", ASKED, "--json")
    assert done.code == 0, done.err
    (result,) = done.json["results"]
    rows = {row["method"]: row for row in result["table"]}
    assert next(iter(rows)) == "oracle"
    for name in ASKED.split(","):
        assert rows["oracle"][name] >= max(rows[m][name] for m in ("saliency", "random order", "edges"))
    assert abs(rows["random order"]["srg"]) < rows["oracle"]["srg"] / 3
    assert rows["edges"]["srg"] < rows["oracle"]["srg"] / 2
    assert 0.2 < rows["random order"]["mask-auc"] < 0.8


def test_a_suite_brings_its_own_inputs(run):
    done = run("evaluate", "sample:cat", "--suite", "single")
    assert done.code != 0
    assert "brings its own inputs" in done.err
