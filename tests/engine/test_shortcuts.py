"""One function in prediction, scores and gradients: torch's fused attention and checkpointing stay out of passes."""

import threading

import pytest
import timm
import torch
import torch.utils.checkpoint as checkpointing
from torch import nn

import pellucid as pl
from helpers.nets import noise, seeded
from pellucid.engine import Capture, leave_no_trace
from pellucid.heatmaps import AttentionRelevance, AttentionRollout, GradCAM, IntegratedGradients, Saliency

LOOK = pl.Preprocess(input_size=(32, 32), mean=(0, 0, 0), std=(1, 1, 1))


class Ragged(nn.Module):
    """Sixteen tokens of which the last `short` are padding, averaged with their padding."""

    def __init__(self, short=6):
        super().__init__()
        self.short, self.embed, self.head = short, nn.Conv2d(3, 16, 8, 8), nn.Linear(16, 4)
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), 2)

    def forward(self, x):
        tokens = self.embed(x).flatten(2).mT
        padding = torch.arange(16).expand(len(x), -1) >= 16 - self.short
        return self.head(self.encoder(tokens, src_key_padding_mask=padding if self.short else None).mean(1) * 4)


class Saving(nn.Module):
    """Two checkpointed blocks between a stem and a head."""

    def __init__(self, reentrant):
        super().__init__()
        self.reentrant, self.stem, self.head = reentrant, nn.Conv2d(3, 6, 4, 4), nn.Linear(6, 3)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Conv2d(6, 6, 3, padding=1), nn.Tanh()) for _ in range(2))
        self.runs = []

    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = x + (
                block(x)
                if self.reentrant is None
                else checkpointing.checkpoint(lambda y, b=block: self.counted(b, y), x, use_reentrant=self.reentrant)
            )
        return self.head(x.mean((2, 3)))

    def counted(self, block, y):
        self.runs.append(block)
        return block(y)


def with_gradients(net, x):
    with torch.enable_grad():
        return net(x).detach()


def test_padded_tokens_have_one_function_in_every_pass():
    net, x = seeded(Ragged).eval(), noise(2, 3, 32, 32)
    with torch.no_grad():
        fused = net(x)
    recorded = with_gradients(net, x)
    assert (fused - recorded).abs().max() > 0.1  # torch's two functions do differ
    model = pl.wrap(net, transform=LOOK)
    torch.testing.assert_close(model.outputs(x), recorded)
    with Capture(net, ["embed"]) as capture, torch.no_grad():
        torch.testing.assert_close(capture.forward(x).detach(), recorded)
    found = IntegratedGradients().explain(net, x, [1])[0]
    with torch.enable_grad():
        gap = (recorded - with_gradients(net, torch.zeros_like(x)))[:, 1]
    torch.testing.assert_close(found.values.flatten(1).sum(1), gap, rtol=0.02, atol=1e-3)
    for method in (GradCAM(), AttentionRollout(), AttentionRelevance()):
        assert method.explain(net, x, [1])[0].values.isfinite().all()
    with torch.no_grad():
        torch.testing.assert_close(net(x), fused)  # the user's own passes are as they were


def test_a_remark_says_where_plain_evaluation_answers_otherwise():
    """It is a fact of the model, so no note of any map."""
    x = noise(1, 3, 32, 32)[0]
    for short, told in ((6, True), (0, False)):
        model = pl.wrap(seeded(lambda short=short: Ragged(short)).eval(), transform=LOOK)
        found = pl.explain(model, x, method="saliency", target=1)
        assert any("torch's fused attention" in r for r in found.remarks) is told
        assert not any("fused" in n for n in found.notes)
        try:
            torch.backends.mha.set_fastpath_enabled(False)
            assert pl.explain(model, x, method="saliency", target=1).remarks == []
        finally:
            torch.backends.mha.set_fastpath_enabled(True)


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointed_blocks_run_once_and_have_the_same_gradient(reentrant):
    x = noise(2, 3, 16, 16)
    plain, saving = (seeded(lambda r=r: Saving(r)).eval() for r in (None, reentrant))
    for method in (Saliency(), GradCAM(), IntegratedGradients()):
        torch.testing.assert_close(method.attribute(saving, x, 1), method.attribute(plain, x, 1))
    with leave_no_trace(saving):
        given = x.clone().requires_grad_()
        (slope,) = torch.autograd.grad(saving(given)[:, 1].sum(), given)
        runs = list(saving.runs)
    assert len(runs) == len(set(runs)) == 2  # never again in the backward pass
    given = x.clone().requires_grad_()
    torch.testing.assert_close(slope, torch.autograd.grad(plain(given)[:, 1].sum(), given)[0])


@pytest.mark.parametrize("method", [Saliency(), GradCAM(), AttentionRollout(), AttentionRelevance()])
def test_a_checkpointed_transformer_has_the_map_of_the_plain_one(method):
    x = noise(1, 3, 64, 64)
    nets = [
        seeded(lambda: timm.create_model("vit_tiny_patch16_224", img_size=64, depth=2, num_classes=3)) for _ in "ab"
    ]
    nets[1].set_grad_checkpointing()
    plain, saving = (method.attribute(net.eval(), x, 1) for net in nets)
    torch.testing.assert_close(saving, plain)


def test_other_threads_keep_their_shortcuts_and_nothing_stays():
    """Meanwhile, and afterwards, also after an error: torch's functions are the very same objects."""
    mine = torch.backends.mha.get_fastpath_enabled, checkpointing._checkpoint_hook
    assert "apply" not in vars(checkpointing.CheckpointFunction)
    net, x, elsewhere = seeded(Ragged).eval(), noise(1, 3, 32, 32), []
    saving = seeded(lambda: Saving(True)).eval()

    def work():
        with torch.no_grad():
            elsewhere.append(net(x))
        saving(x).sum().backward()
        elsewhere.append(len(saving.runs))

    with torch.no_grad():
        fused = net(x)
    with leave_no_trace(nn.Identity()), leave_no_trace(nn.Identity()):
        with torch.no_grad():
            assert (net(x) - fused).abs().max() > 0.01
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    torch.testing.assert_close(elsewhere[0], fused)
    assert elsewhere[1] == 4  # each block again in the backward pass
    with pytest.raises(ZeroDivisionError), leave_no_trace(net):
        raise ZeroDivisionError
    assert (torch.backends.mha.get_fastpath_enabled, checkpointing._checkpoint_hook) == mine
    assert "apply" not in vars(checkpointing.CheckpointFunction)
    with torch.no_grad():
        torch.testing.assert_close(net(x), fused)
