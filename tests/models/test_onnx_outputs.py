"""Black boxes of several outputs: each is found by its name, and the scores among them by proof or by what is said."""

import numpy as np
import pytest
import torch

import pellucid as pl
from pellucid.errors import ModelError, PellucidError
from pellucid.heatmaps import Occlusion

SIDE, CLASSES = 16, 3
LOOK = pl.Preprocess(input_size=(SIDE, SIDE), mean=(0.5,) * 3, std=(0.25,) * 3)
WEIGHTS = {
    name: np.random.default_rng(n).normal(size=(3 * SIDE * SIDE, width)).astype(np.float32) / 8
    for n, (name, width) in enumerate({"features": 7, "heads.quality": 4, "scores": CLASSES, "aux": CLASSES}.items())
}


def truth(x, name):
    return x.flatten(1) @ torch.from_numpy(WEIGHTS[name])


@pytest.fixture
def x():
    return torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def file(tmp_path):
    """An ONNX file of the linear maps that are named, the class of the last as `answer`, and a `constant`."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from onnx import TensorProto, helper, numpy_helper

    def make(*names, batch="N", extra=True):
        nodes = [helper.make_node("Flatten", ["x"], ["flat"])]
        nodes += [helper.make_node("MatMul", ["flat", f"W {n}"], [n]) for n in names]
        told = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [batch, WEIGHTS[n].shape[1]]) for n in names]
        held = [numpy_helper.from_array(WEIGHTS[n], f"W {n}") for n in names]
        if extra:
            nodes.append(helper.make_node("ArgMax", [names[-1]], ["answer"], axis=1, keepdims=0))
            nodes.append(helper.make_node("Identity", ["six"], ["constant"]))
            told.append(helper.make_tensor_value_info("answer", TensorProto.INT64, [batch]))
            told.append(helper.make_tensor_value_info("constant", TensorProto.FLOAT, [6, 4]))
            held.append(numpy_helper.from_array(np.ones((6, 4), np.float32), "six"))
        given = helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3, SIDE, SIDE])
        graph = helper.make_graph(nodes, "several", [given], told, held)
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        onnx.save(made, tmp_path / "several.onnx")
        return f"onnx:{tmp_path / 'several.onnx'}"

    return make


@pytest.mark.parametrize("batch", ["N", 1, 3])
def test_all_outputs_of_a_file_go_by_their_names(file, x, batch):
    box = pl.load(file("features", "heads.quality", "scores", batch=batch))
    x = torch.cat([x, x + 1, x - 1])[:5]
    output = box.outputs(x)
    assert list(output) == ["features", "heads.quality", "scores", "answer"]
    for name in ("features", "heads.quality", "scores"):
        torch.testing.assert_close(output[name], truth(x, name), rtol=1e-4, atol=1e-4)
    assert output["answer"][:, 0].equal(truth(x, "scores").argmax(1))


def test_the_labels_say_which_of_them_holds_the_scores(file, x, tmp_path):
    name = file("features", "heads.quality", "scores")
    (tmp_path / "labels.txt").write_text("a\nb\nc\n")
    box = pl.load(name, labels=tmp_path / "labels.txt")
    model = pl.wrap(lambda batch: truth(batch, "scores"), transform=LOOK, labels=list("abc"))
    method = Occlusion(window=4, stride=4)
    ours, theirs = (pl.explain(m, x[0], method, "b") for m in (model, box))
    torch.testing.assert_close(ours.attribution, theirs.attribution, rtol=1e-4, atol=1e-4)
    assert theirs.record.model["reading"]["output"] == "scores"
    assert [p.label for p in theirs.prediction] == [p.label for p in ours.prediction]


@pytest.mark.parametrize("chosen", ["aux", "heads.quality", "scores"])
def test_one_is_picked_by_name(file, x, chosen, tmp_path):
    box = pl.load(file("features", "heads.quality", "scores", "aux"), output=chosen)
    scores = box.reading.tensor(box.outputs(x))
    torch.testing.assert_close(scores, truth(x, chosen), rtol=1e-4, atol=1e-4)
    e = pl.explain(box, "sample:cat", Occlusion(window=8, stride=8), 1)
    assert pl.verify(e.save(tmp_path / "out")[0]).status == "same"


def test_without_labels_or_a_name_the_candidates_are_told(file, x):
    box = pl.load(file("scores", "aux"))
    with pytest.raises(PellucidError, match=r"y\['scores'\] \(1, 3\), y\['aux'\] \(1, 3\).*output='scores'"):
        pl.explain(box, x[0], "occlusion")
    with pytest.raises(PellucidError, match=r"no tensor 'head'.*'scores'"):
        pl.explain(pl.load(file("scores", "aux"), output="head"), x[0], "occlusion")
    e = pl.explain(box, x[0], Occlusion(window=4, stride=4), lambda y: y["aux"][:, 1])
    expected = pl.explain(pl.wrap(lambda b: truth(b, "aux"), transform=LOOK), x[0], Occlusion(window=4, stride=4), 1)
    torch.testing.assert_close(e.attribution, expected.attribution, rtol=1e-4, atol=1e-4)


def test_a_file_of_one_output_answers_a_tensor(file, x):
    output = pl.load(file("scores", extra=False)).outputs(x)
    torch.testing.assert_close(output, truth(x, "scores"), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("numpy", [False, True])
def test_a_function_may_answer_several_too_and_is_asked_once(x, numpy):
    seen = []

    def answer(batch):
        seen.append(len(batch))
        batch = torch.as_tensor(batch)
        found = {name: truth(batch, name) for name in ("features", "scores")}
        return {name: each.numpy() for name, each in found.items()} if numpy else found

    box = pl.wrap(answer, numpy=numpy, transform=LOOK, labels=list("abc"))
    for _ in range(3):
        torch.testing.assert_close(box.outputs(x)["scores"], truth(x, "scores"))
        torch.testing.assert_close(box.outputs(x)["features"], truth(x, "features"))
    assert seen == [2, 1]


@pytest.mark.parametrize(
    ("later", "said"),
    [
        (lambda x: {"a": truth(x, "scores")}, "answered 'a', and 'a', 'b' before"),
        (lambda x: truth(x, "scores"), "answered scores alone, and 'a', 'b' before"),
        (
            lambda x: {"a": truth(x, "scores"), "b": truth(x, "features")[:, 1:]},
            r"\(6,\) scores.*'b', and \(7,\) before",
        ),
        (lambda x: {"a": truth(x, "scores"), "b": truth(x, "features")[:1]}, "shape .* to 2 inputs in its output 'b'"),
        (lambda x: {"a": truth(x, "scores"), "b": truth(x, "features") / 0}, "NaN or infinity to 2 .*output 'b'"),
    ],
)
def test_outputs_that_change_are_named(x, later, said):
    first = {"now": lambda b: {"a": truth(b, "scores"), "b": truth(b, "features")}}
    box = pl.wrap(lambda b: first["now"](b), transform=LOOK)
    box.outputs(x)
    first["now"] = later
    with pytest.raises(ModelError, match=said):
        box.outputs(x + 1)
