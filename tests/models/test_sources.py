import itertools
import json
import time
from pathlib import Path

import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import save_file
from torch import nn

from helpers.nets import noise, pooled, random_net
from pellucid.errors import ModelError
from pellucid.media import read_image
from pellucid.models import embedded
from pellucid.models.checkpoints import fit_names
from pellucid.models.preprocess import Preprocess
from pellucid.models.sources import hub, load, wrap

SMALL = "timm:test_resnet"


# --- the embedded model ---


def test_the_embedded_weights_are_the_ones_expected(monkeypatch):
    assert embedded.checkpoint().name == "efficientnet-lite0-57934424.pth"
    monkeypatch.setattr(embedded, "SHA256", "0" * 64)
    with pytest.raises(ModelError, match=r"another hash.*force-reinstall"):
        embedded.checkpoint()


def test_every_embedded_weight_has_one_place_of_its_own_shape(embedded_model):
    stored = torch.load(embedded.checkpoint(), map_location="cpu", weights_only=True)
    wanted = timm.create_model("tf_efficientnet_lite0").state_dict()
    places = {name: embedded.timm_name(name) for name in stored}
    assert len(set(places.values())) == len(places)
    assert set(places.values()) == wanted.keys()
    loaded = embedded_model.module.state_dict()
    for name, place in places.items():
        assert stored[name].shape == wanted[place].shape
        assert torch.equal(stored[name], loaded[place])
    # the order of the blocks by their sizes: a block's input has as many channels as the one before has outputs
    blocks = [b for stage in embedded_model.module.blocks for b in stage]
    assert len(blocks) == 16
    for before, after in itertools.pairwise(blocks):
        last = before.conv_pwl if hasattr(before, "conv_pwl") else before.conv_pw
        first = after.conv_pw if hasattr(after, "conv_pwl") else after.conv_dw
        assert last.out_channels == first.in_channels


CATS = {"tabby", "tiger cat", "Persian cat", "Siamese cat", "Egyptian cat", "lynx"}


def test_the_embedded_model_knows_a_cat(embedded_model):
    x, _ = embedded_model.preprocess(read_image("sample:cat"))
    (top,) = embedded_model.predict(x[None], 3)
    assert {p.label for p in top} <= CATS
    assert sum(p.probability for p in top) > 0.5


# --- weights of the user's own ---


def trained(classes=None, seed=3):
    name = SMALL.removeprefix("timm:")
    return random_net(name, seed=seed, classes=classes or timm.create_model(name).num_classes)


def stored(net, path, wrap=lambda s: s):
    state = {k: v.contiguous() for k, v in net.state_dict().items()}
    save_file(state, path) if path.suffix == ".safetensors" else torch.save(wrap(state), path)
    return path


WRAPPINGS = {
    "w.safetensors": lambda s: s,
    "plain.pth": lambda s: s,
    "lightning.ckpt": lambda s: {"state_dict": {f"module.{k}": v for k, v in s.items()}, "epoch": 3},
    "compiled.pt": lambda s: {"model": {f"_orig_mod.module.{k}": v for k, v in s.items()}},
    "wrapped twice.pt": lambda s: {f"module._orig_mod.{k}": v for k, v in s.items()},
    "prefixed.pt": lambda s: {f"model.{k}": v for k, v in s.items()},
    "nested.pt": lambda s: {"net": {"state_dict": s}},
    "uncounted.pt": lambda s: {k: v for k, v in s.items() if "num_batches" not in k},
}


@pytest.mark.parametrize("file", WRAPPINGS)
def test_weights_come_back_from_files_of_all_kinds(file, tmp_path):
    net = trained()
    model = load(SMALL, weights=stored(net, tmp_path / file, WRAPPINGS[file]))
    x = noise(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(model.outputs(x), net(x))
    assert len(model.labels) == net.num_classes


@pytest.mark.parametrize("file", ["w.safetensors", "plain.pth"])
def test_weights_for_another_number_of_classes(file, tmp_path):
    net = trained(classes=7)
    model = load(SMALL, weights=stored(net, tmp_path / file), labels=list("abcdefg"))
    x = noise(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(model.outputs(x), net(x))
    assert model.labels == tuple("abcdefg")
    assert load(SMALL, weights=tmp_path / file).labels is None  # ImageNet's names would be lies


class Payload:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_pickled_objects_are_refused_and_never_run(tmp_path):
    marker = tmp_path / "executed"
    for i, thing in enumerate(
        (nn.Linear(2, 2), Payload(marker), {"state_dict": trained().state_dict(), "x": Payload(marker)})
    ):
        file = tmp_path / f"{i}.pth"
        torch.save(thing, file)
        with pytest.raises(ModelError, match=r"pickled Python objects.*refused"):
            load(SMALL, weights=file)
    assert not marker.exists()
    torch.load(tmp_path / "1.pth", weights_only=False)
    assert marker.exists()  # it would have run


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: None, "There is no weights file"),
        (lambda p: p.write_bytes(b""), "no checkpoint that can be read"),
        (lambda p: p.write_bytes(b"PK\x03\x04 broken"), "no checkpoint that can be read"),
        (lambda p: torch.save({"epoch": 3}, p), "holds no named weights"),
        (lambda p: torch.save(torch.zeros(3), p), "holds no named weights"),
        (lambda p: p.mkdir(), "There is no weights file"),
    ],
    ids=["missing", "empty", "broken", "no tensors", "a tensor", "a folder"],
)
def test_files_that_hold_no_weights(make, message, tmp_path):
    file = tmp_path / "w.pth"
    make(file)
    with pytest.raises(ModelError, match=message):
        load(SMALL, weights=file)


def test_a_broken_safetensors_file(tmp_path):
    file = tmp_path / "w.safetensors"
    file.write_bytes(b"\xff" * 40)
    with pytest.raises(ModelError, match="not a sound safetensors file"):
        load(SMALL, weights=file)


def test_weights_of_another_architecture_are_named(tmp_path):
    file = stored(pooled(), tmp_path / "w.pth")
    with pytest.raises(ModelError, match=r"not for this architecture.*lacks '.*missing.*unknown"):
        load(SMALL, weights=file)
    state = trained().state_dict()
    extra = stored(trained(), tmp_path / "extra.pth", lambda s: {**s, "surplus.weight": torch.zeros(1)})
    with pytest.raises(ModelError, match=r"holds 'surplus\.weight'"):
        load(SMALL, weights=extra)
    lost = next(k for k in state if k.endswith("weight"))
    gap = stored(trained(), tmp_path / "gap.pth", lambda s: {k: v for k, v in s.items() if k != lost})
    with pytest.raises(ModelError, match=f"lacks '{lost}'"):
        load(SMALL, weights=gap)
    mixed = {**{f"module.{k}": v * 0 for k, v in state.items()}, **state}
    assert all(torch.equal(v, state[k]) for k, v in fit_names(mixed, trained()).items())  # exact names win
    with pytest.raises(ModelError, match="not both"):
        load(SMALL, weights=gap, random_weights=True)


# --- random weights ---


def test_random_weights_repeat_by_their_seed_and_disturb_nobody():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    a, b, c = load(SMALL, random_weights=True), load(SMALL, random_weights=0), load(SMALL, random_weights=7)
    assert torch.equal(torch.get_rng_state(), before)
    assert a.fingerprint() == b.fingerprint() != c.fingerprint()
    assert a.source == {"name": SMALL, "random_weights": 0}
    assert c.source["random_weights"] == 7
    assert load(**c.source).fingerprint() == c.fingerprint()
    assert not a.module.training


@pytest.mark.parametrize("name", ["timm:mixer_s32_224", "timm:test_vit", "torchvision:squeezenet1_0"])
def test_no_net_with_random_weights_has_a_head_of_zeros(name):
    model = load(name, random_weights=True)
    size = model.preprocess.input_size
    y = model.outputs(noise(2, 3, *size))
    assert y.std() > 0
    assert not torch.equal(y[0], y[1])


# --- names ---


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("efficientnet-lite", "'efficientnet-lite0'"),
        ("resnet18", "'timm:resnet18'"),
        ("timmm:resnet18", "'timm:resnet18'"),
        ("torchvison:resnet18", "'torchvision:resnet18'"),
        ("timm:resnet81", "timm:resnet18"),
        ("torchvision:resnet19", "torchvision:resnet18"),
        ("torchvision:fasterrcnn_resnet50_fp", "torchvision:fasterrcnn_resnet50_fpn"),
        ("embedded:efficientnet-lite0", "'efficientnet-lite0'"),
        ("torchvision:resnet18:IMAGENET1K_V9", "it has IMAGENET1K_V1"),
        ("???", "pellucid models"),
    ],
)
def test_wrong_names_get_near_misses(name, hint):
    with pytest.raises(ModelError, match=hint):
        load(name)


def test_labels_from_files(tmp_path):
    lines, listed, broken = tmp_path / "a.txt", tmp_path / "a.json", tmp_path / "b.json"
    lines.write_text("cat\n\n dog \n", encoding="utf-8")
    listed.write_text(json.dumps(["chat", "chién"]), encoding="utf-8")
    broken.write_text("[cat, dog")
    assert wrap(pooled(), labels=lines).labels == ("cat", "dog")
    assert wrap(pooled(), labels=str(listed)).labels == ("chat", "chién")
    for bad in (broken, tmp_path / "none.txt"):
        with pytest.raises(ModelError):
            wrap(pooled(), labels=bad)


# --- weights from hubs ---


@pytest.fixture
def no_hub(monkeypatch, tmp_path):
    """A hub that does not exist, and an empty cache."""
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "ENDPOINT", "https://hub.invalid")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def test_a_hub_that_does_not_answer_is_said_at_once(no_hub):
    start = time.perf_counter()
    with pytest.raises(ModelError, match=r"timm:test_resnet.*hub does not answer.*--weights.*--random-weights"):
        load(SMALL)
    assert time.perf_counter() - start < 6


def test_a_hub_that_answers_is_asked(no_hub, monkeypatch):
    asked = []
    monkeypatch.setattr(hub, "answers", lambda host: asked.append(host) or True)
    monkeypatch.setattr(timm, "create_model", lambda *_a, **options: asked.append(options) or pytest.fail("enough"))
    with pytest.raises(pytest.fail.Exception, match="enough"):
        load(SMALL)
    assert asked == ["hub.invalid", {"pretrained": True, "pretrained_cfg_overlay": None}]


@pytest.mark.parametrize("reachable", [False, None])
def test_weights_in_the_local_cache_are_found_without_a_hub(reachable, no_hub, monkeypatch):
    net = trained(classes=1000)
    repository = timm.get_pretrained_cfg("test_resnet").hf_hub_id
    folder = no_hub / f"models--{repository.replace('/', '--')}"
    snapshot = folder / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("0" * 40)
    stored(net, snapshot / "model.safetensors")
    if reachable is None:
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        monkeypatch.setattr(hub, "answers", lambda host: pytest.fail("asked the hub though offline"))
    model = load(SMALL)
    x = noise(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(model.outputs(x), net(x))


def test_torchvisions_server_that_does_not_answer(monkeypatch, tmp_path):
    from urllib.error import URLError

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def refuse(*_args, **_kwargs):
        raise URLError("no route")

    monkeypatch.setattr("torch.hub.urlopen", refuse)
    with pytest.raises(ModelError, match=r"torchvision:squeezenet1_1.*hub does not answer"):
        load("torchvision:squeezenet1_1")


# --- models that do not fit ---


def test_weights_that_are_no_numbers_are_named():
    net = pooled()
    net[2].weight.data[0, 0, 0, 0] = float("nan")
    with pytest.raises(ModelError, match=r"weights hold NaN.*'2\.weight'"):
        wrap(net).predict(noise(1, 3, 32, 32))
    sound = pooled()
    with pytest.raises(ModelError, match="scores hold NaN"):
        wrap(sound).predict(torch.full((1, 3, 32, 32), 3e38))


def test_a_model_of_one_channel_given_colours_names_the_cure():
    net = pooled(width=1)
    with pytest.raises(ModelError, match=r"takes 1 channel but the input has 3.*channels=1"):
        wrap(net).predict(noise(1, 3, 32, 32))
    cured = wrap(net, transform=Preprocess(input_size=(32, 32), mean=(0.5,), std=(0.5,), channels=1))
    x, _ = cured.preprocess(read_image("sample:cat"))
    assert torch.equal(cured.outputs(x[None]), net(x[None]).detach())


def test_an_input_of_a_wrong_size_names_the_cure():
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 4))
    with pytest.raises(ModelError, match=r"failed on an input of shape \(1, 3, 9, 9\).*transform="):
        wrap(net).predict(noise(1, 3, 9, 9))


def test_what_cannot_be_wrapped():
    with pytest.raises(ModelError, match="wrapped already"):
        wrap(wrap(pooled()))
    with pytest.raises(ModelError, match="not int"):
        wrap(3)
    with pytest.raises(ModelError, match="A transform is a function"):
        wrap(pooled(), transform=3)
    with pytest.raises(ModelError, match="not available here"):
        wrap(pooled(), device="cuda:97")


def test_the_fingerprint_tells_every_change_and_nothing_else():
    model, twin = wrap(pooled()), wrap(pooled())
    first = model.fingerprint()
    assert twin.fingerprint() == first
    model.predict(noise(1, 3, 32, 32))
    assert model.fingerprint() == first
    with torch.no_grad():
        model.module[0].bias[1] += 1e-6
    changed = model.fingerprint()
    assert changed != first
    model.module[0].bias = nn.Parameter(twin.module[0].bias.detach().clone())
    assert model.fingerprint() == first
    model.module.identity = nn.Identity()  # a name like any other, without weights
    assert model.fingerprint() == first


def test_predictions_are_the_softmax_in_order():
    net, x = pooled(), noise(2, 3, 32, 32)
    labels = list("abcde")
    for found, scores in zip(wrap(net, labels=labels).predict(x, 3), net(x).detach(), strict=True):
        share = scores.exp() / scores.exp().sum()
        order = sorted(range(5), key=lambda i: -float(share[i]))[:3]
        assert [p.index for p in found] == order
        assert [p.label for p in found] == [labels[i] for i in order]
        assert [p.probability for p in found] == pytest.approx([float(share[i]) for i in order], rel=1e-5)
