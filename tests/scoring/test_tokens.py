import copy
import gc
import threading
import weakref

import pytest
import torch
from torch import nn
from torchvision.models import VisionTransformer

from helpers.nets import Sevens, Shuffled, noise, pooled, random_net, seeded
from helpers.traces import raised_by_a_model
from pellucid.engine.masks import SegmentMasks
from pellucid.errors import MethodError, ModelError, OutOfMemoryError
from pellucid.scoring.tokens import TokenScorer, entries, token_scorer

SIZE = 32
TINY = {"img_size": SIZE, "patch_size": 8, "embed_dim": 24, "num_heads": 2, "depth": 3}  # 4 x 4 patches


def score(_classes=(1,)):
    return lambda y, _watched, _rows: [y[:, c] for c in _classes]


def torchvision_vit():
    net = VisionTransformer(SIZE, 8, 3, 2, 24, 48, num_classes=6)
    nn.init.normal_(net.heads.head.weight)  # born with zeros, which would explain nothing
    return net.eval()


class Attend(nn.Module):
    """A block as Hugging Face writes them: keyword input, a tuple out."""

    def __init__(self, width=16):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, 2, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(width, 32), nn.GELU(), nn.Linear(32, width))

    def forward(self, head_mask=None, hidden_states=None):
        t = self.norm(hidden_states)
        t = hidden_states + self.attention(t, t, t)[0]
        return (t + self.mlp(t), None)


class HuggingViT(nn.Module):
    """Nested as there: `vit.encoder.layer`, with its logits in a dict; no class token unless `prefix`."""

    def __init__(self, prefix=1, block=Attend):
        super().__init__()
        self.embed = nn.Conv2d(3, 16, 8, 8)
        self.cls = nn.Parameter(torch.randn(1, prefix, 16))
        self.position = nn.Parameter(torch.randn(1, 16 + prefix, 16))
        self.vit = nn.ModuleDict({"encoder": nn.ModuleDict({"layer": nn.ModuleList([block() for _ in range(3)])})})
        self.head = nn.Linear(16, 4)

    def forward(self, x):
        t = self.embed(x).flatten(2).mT
        t = torch.cat([self.cls.expand(len(x), -1, -1), t], 1) + self.position
        for block in self.vit["encoder"]["layer"]:
            t = block(hidden_states=t)[0]
        return {"logits": self.head(t.mean(1))}


def kept_tokens(t, prefix, kept):
    return torch.cat([t[:, :prefix], t[:, prefix:][:, kept]], 1)


def timm_by_hand(net, x, kept):
    patches = net.patch_embed.proj(x).flatten(2).mT
    extra = [p for p in (net.cls_token, getattr(net, "dist_token", None), net.reg_token) if p is not None]
    t = torch.cat([*extra, patches + net.pos_embed], 1) if net.no_embed_class else None
    t = torch.cat([*extra, patches], 1) + net.pos_embed if t is None else t
    prefix = t.shape[1] - patches.shape[1]
    t = kept_tokens(t, prefix, kept)
    for block in net.blocks:
        t = block(t)
    t = net.norm(t)
    if hasattr(net, "head_dist"):
        return (net.head(t[:, 0]) + net.head_dist(t[:, 1])) / 2
    return net.head(net.fc_norm(t[:, prefix:].mean(1) if net.global_pool == "avg" else t[:, 0]))


def torchvision_by_hand(net, x, kept):
    t = torch.cat([net.class_token, net.conv_proj(x).flatten(2).mT], 1) + net.encoder.pos_embedding
    t = kept_tokens(t, 1, kept)
    for block in net.encoder.layers:
        t = block(t)
    return net.heads(net.encoder.ln(t)[:, 0])


def hugging_by_hand(net, x, kept):
    t = torch.cat([net.cls, net.embed(x).flatten(2).mT], 1) + net.position
    t = kept_tokens(t, net.cls.shape[1], kept)
    for block in net.vit["encoder"]["layer"]:
        t = block(hidden_states=t)[0]
    return net.head(t.mean(1))


PLAIN = {
    "timm": (lambda: random_net("vit_tiny_patch16_224", **TINY), timm_by_hand),
    "timm, mean pooling": (
        lambda: random_net("vit_tiny_patch16_224", class_token=False, global_pool="avg", **TINY),
        timm_by_hand,
    ),
    "timm, registers": (
        lambda: random_net("vit_tiny_patch16_224", reg_tokens=4, no_embed_class=True, init_values=0.5, **TINY),
        timm_by_hand,
    ),
    "timm, distilled": (lambda: random_net("deit_tiny_distilled_patch16_224", **TINY), timm_by_hand),
    "torchvision": (lambda: seeded(torchvision_vit), torchvision_by_hand),
    "hugging face": (lambda: seeded(HuggingViT).eval(), hugging_by_hand),
    "hugging face, no prefix": (lambda: seeded(lambda: HuggingViT(0)).eval(), hugging_by_hand),
}


def first(y):
    return y["logits"] if isinstance(y, dict) else y


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize("batch", [1, 3, 64])
def test_equals_running_the_kept_tokens_by_hand(name, batch):
    build, by_hand = PLAIN[name]
    net, x = build(), noise(2, 3, SIZE, SIZE)
    scorer = token_scorer(net, x, lambda y, _w, _r: [first(y)[:, 1], first(y)[:, 2]], targets=2, batch=batch)
    assert scorer is not None
    assert scorer.grid == (4, 4)
    kept = torch.rand(2, 9, 16, generator=torch.Generator().manual_seed(0)) < torch.linspace(0.1, 0.9, 9)[:, None]
    kept[:, :, 0] |= ~kept.any(-1)
    with scorer:
        found, plain, shared = scorer(kept), scorer.plain(), scorer(kept[0])
    with torch.no_grad():
        by_hand_scores = torch.stack(
            [torch.stack([by_hand(net, x[n : n + 1], k)[0, 1:3] for k in kept[n]]) for n in range(2)]
        )
        torch.testing.assert_close(plain.float(), first(net(x))[:, 1:3], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.float(), by_hand_scores, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(shared[0], found[0], rtol=1e-4, atol=1e-5)


def test_rectangles_and_clips():
    net = random_net("vit_tiny_patch16_224", **{**TINY, "img_size": (16, 32)})
    scorer = token_scorer(net, noise(1, 3, 16, 32), score())
    assert scorer is not None
    assert scorer.grid == (2, 4)

    class Tubes(HuggingViT):
        def __init__(self):
            super().__init__()
            self.embed = nn.Conv3d(3, 16, (2, 8, 8), (2, 8, 8))
            self.position = nn.Parameter(torch.randn(1, 33, 16))

    clip = seeded(Tubes).eval()
    scorer = token_scorer(clip, noise(1, 3, 4, 32, 32), lambda y, _w, _r: [y["logits"][:, 0]])
    assert scorer is not None
    assert scorer.grid == (2, 4, 4)


class Relative(Attend):
    """Knows how far tokens are apart, but takes any number of them."""

    def forward(self, head_mask=None, hidden_states=None):
        return super().forward(hidden_states=hidden_states + 0.1 * hidden_states.roll(1, 1))[0], None


class Mixer(Attend):
    def __init__(self):
        super().__init__()
        self.mix = nn.Linear(17, 17)

    def forward(self, head_mask=None, hidden_states=None):
        return super().forward(hidden_states=hidden_states + self.mix(hidden_states.mT).mT)[0], None


class Overlapping(HuggingViT):
    """Its patches reach into each other."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Conv2d(3, 16, 12, 8, 2)


class Reordered(HuggingViT):
    def __init__(self):
        super().__init__()
        self.embed = nn.Sequential(nn.Conv2d(3, 16, 8, 8), nn.Flatten(2, 2), Transposed())


class Transposed(nn.Module):
    def forward(self, t):
        return t.mT


class Dark(HuggingViT):
    """Its head is zero: no test can tell what matters."""

    def __init__(self):
        super().__init__()
        nn.init.zeros_(self.head.weight)


REFUSED = {
    "convolutions": lambda: random_net("resnet18"),
    "pooled": pooled,
    "sevens": lambda: seeded(Sevens).eval(),
    "relative positions": lambda: random_net("vit_relpos_small_patch16_224", **TINY),
    "rotary positions": lambda: random_net("eva02_tiny_patch14_224", **{**TINY, "embed_dim": 48}),
    "beit": lambda: random_net("beit_base_patch16_224", **TINY),
    "mixer": lambda: random_net("mixer_s32_224", img_size=64),
    "swin": lambda: random_net("swin_tiny_patch4_window7_224", img_size=32, window_size=4, depths=(2, 2, 2, 2)),
    "levit": lambda: random_net("levit_128s", img_size=64),
    "class attention": lambda: random_net("cait_xxs24_224", img_size=64, depth=2),
    "neighbours": lambda: seeded(lambda: HuggingViT(block=Relative)).eval(),
    "token mixing": lambda: seeded(lambda: HuggingViT(block=Mixer)).eval(),
    "overlapping patches": lambda: seeded(Overlapping).eval(),
    "re-ordered": lambda: seeded(Reordered).eval(),
    "no blocks": lambda: seeded(lambda: Shuffled((4, 4), 8, list(range(16)))).eval(),
    "a dead head": lambda: seeded(Dark).eval(),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refuses_what_is_not_sound(name):
    net = REFUSED[name]()
    size = 64 if name in ("convolutions", "mixer", "levit", "class attention") else SIZE
    assert token_scorer(net, noise(1, 3, size, size), lambda y, _w, _r: [first(y)[:, 1]]) is None


def test_refuses_scores_that_read_a_place():
    net, x = random_net("vit_tiny_patch16_224", **TINY), noise(1, 3, SIZE, SIZE)
    for place, sound in ((0, True), (5, False)):
        read = lambda _y, watched, _r, place=place: [watched["blocks.1"][:, place].square().sum(-1)]
        found = token_scorer(net, x, read, watch=["blocks.1"])
        assert (found is not None) is sound


def test_only_whole_patches():
    net = random_net("vit_tiny_patch16_224", dynamic_img_size=True, dynamic_img_pad=True, **TINY)
    assert entries(net, noise(1, 3, 36, 36)) == ()
    assert entries(net, noise(1, 3, 40, 40))[0].layout.grid == (5, 5)


def test_masks_of_one_size_share_batches_and_short_rows_fill_them():
    net, x = random_net("vit_tiny_patch16_224", **TINY), noise(2, 3, SIZE, SIZE)
    scorer = token_scorer(net, x, score(), batch=6)
    sizes = []
    hook = net.blocks[1].register_forward_pre_hook(lambda _m, args: sizes.append(tuple(args[0].shape[:2])))
    with scorer:
        before = scorer.cost.forwards
        places = torch.combinations(torch.arange(16), 3)[:20]
        scorer(
            torch.zeros(20, 16, dtype=torch.bool).scatter_(1, places, True)
        )  # 40 rows of 4 tokens: 6 x 17 tokens hold 25 of them
        assert sizes == [(25, 4), (15, 4)]
        assert scorer.cost.forwards - before == pytest.approx(40 * 4 / 17, abs=1)
    hook.remove()


def test_bad_masks():
    net, x = random_net("vit_tiny_patch16_224", class_token=False, global_pool="avg", **TINY), noise(2, 3, SIZE, SIZE)
    with token_scorer(net, x, score()) as scorer:
        for wrong in (torch.ones(3, 15, dtype=torch.bool), torch.ones(3, 16), torch.ones(3, 3, 16, dtype=torch.bool)):
            with pytest.raises(MethodError, match="true or false"):
                scorer(wrong)
        with pytest.raises(MethodError, match="at least one patch"):
            scorer(torch.zeros(1, 16, dtype=torch.bool))


class Failing(nn.Module):
    """A transformer whose `at`-th pass fails behind its first block."""

    def __init__(self, error, at):
        super().__init__()
        self.net, self.error, self.at, self.passes = seeded(HuggingViT), error, at, 0
        self.net.head.register_forward_pre_hook(self.fail)

    def fail(self, _module, _args):
        self.passes += 1
        if self.passes == self.at:
            raise self.error

    def forward(self, x):
        return self.net(x)["logits"]


def test_memory_runs_out():
    error = RuntimeError("DefaultCPUAllocator: can't allocate memory")
    x, kept = noise(1, 3, SIZE, SIZE), (torch.arange(16) + torch.arange(8)[:, None]) % 16 < 8
    expected = token_scorer(Failing(error, -1).eval(), x, score(), batch=8)
    with expected:
        truth = expected(kept)
    net = Failing(error, -1).eval()
    scorer = token_scorer(net, x, score(), batch=8)
    net.at = net.passes + 1
    with scorer:
        torch.testing.assert_close(scorer(kept), truth, rtol=1e-5, atol=1e-6)
        assert scorer.batch < 8
    with pytest.raises(OutOfMemoryError, match="Memory"):  # and is no proof of anything
        token_scorer(Failing(error, 1).eval(), x, score())


def hooks(net):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in net.modules())


@pytest.mark.parametrize("error", [ValueError("mine"), KeyboardInterrupt()])
def test_leaves_no_trace(error):
    x = noise(1, 3, SIZE, SIZE)
    net = Failing(error, -1).train()
    net.net.vit["encoder"]["layer"][1].eval()
    before = hooks(net), [m.training for m in net.modules()], copy.deepcopy(net.net.state_dict())
    random = torch.get_rng_state()
    scorer = token_scorer(net, x, score())
    with scorer:
        scorer(torch.ones(2, 16, dtype=torch.bool))
        net.at = net.passes + 1
        with raised_by_a_model(error):
            scorer(torch.ones(2, 16, dtype=torch.bool))
    assert (hooks(net), [m.training for m in net.modules()]) == before[:2]
    assert all(torch.equal(a, b) for a, b in zip(net.net.state_dict().values(), before[2].values(), strict=True))
    assert torch.equal(torch.get_rng_state(), random)
    assert not any(p.grad is not None for p in net.parameters())
    reference = weakref.ref(net)
    error.__traceback__ = None  # its frames hold the net
    del scorer, net
    gc.collect()
    assert reference() is None


def test_threads_share_a_model():
    net = random_net("vit_tiny_patch16_224", **TINY)
    inputs = [noise(1, 3, SIZE, SIZE, seed=i) for i in range(4)]
    kept = [torch.rand(12, 16, generator=torch.Generator().manual_seed(i)) < 0.5 for i in range(4)]

    def work(i):
        with token_scorer(net, inputs[i], score()) as scorer:
            return scorer(kept[i])

    alone, found = [work(i) for i in range(4)], [None] * 4
    barrier = threading.Barrier(4)

    def run(i):
        barrier.wait(10)
        found[i] = [work(i) for _ in range(3)]

    threads = [threading.Thread(target=run, args=(i,)) for i in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(60)
    assert all(torch.equal(f, a) for per_thread, a in zip(found, alone, strict=True) for f in per_thread)
    assert hooks(net) == 0


def test_weights_that_give_nan_are_said_out_loud():
    net, x = random_net("vit_tiny_patch16_224", **TINY), noise(1, 3, SIZE, SIZE)
    scorer = token_scorer(net, x, score())
    assert isinstance(scorer, TokenScorer)
    with torch.no_grad():
        net.head.bias.fill_(float("nan"))
    with scorer, pytest.raises(ModelError, match="NaN"):
        scorer(torch.ones(1, 16, dtype=torch.bool))


def test_sets_scored_by_size_are_no_sample_of_those_that_were_asked_for():
    net, x = random_net("vit_tiny_patch16_224", **TINY), noise(1, 3, SIZE, SIZE)
    kept = torch.rand(12, 16, generator=torch.Generator().manual_seed(0)) < 0.5

    def breaks(y, watched, rows):
        if broken[0] and len(calls) == 3:
            raise ModelError("broken")
        calls.append(len(y))
        return score()(y, watched, rows)

    broken, calls = [False], []
    scorer = token_scorer(net, x, breaks)
    masks = SegmentMasks(kept.float(), torch.arange(16).reshape(4, 4))
    calls.clear()
    broken[0] = True
    with scorer:
        found, failure = scorer.answered(masks)
        assert str(failure) == "broken"
        assert len(calls) == 3
        assert found.isnan().all()
        broken[0] = False
        found, failure = scorer.answered(masks)
        assert failure is None
        assert torch.equal(found, scorer(kept))


def test_blocks_whose_tokens_have_met_are_ruled_out_by_one_pass_each():
    """Of a small grid of large patches there are hundreds of readings; the second list here holds mixed tokens."""

    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.meet = nn.Conv2d(3, 8, 32, 32), nn.Linear(4, 4)
            self.blocks = nn.ModuleList([nn.Sequential(nn.Linear(8, 8)), nn.Sequential(nn.Linear(8, 8))])
            self.runs = 0

        def forward(self, x):
            self.runs += 1
            x = self.meet(self.embed(x).flatten(2)).transpose(1, 2)
            for block in self.blocks:
                x = block(x)
            return x.mean(1)

    net = seeded(Mixed).eval()
    assert entries(net, noise(1, 3, 64, 64)) == ()
    assert net.runs <= 4
