"""Slow, plain ways to the truth, which share no code with Pellucid."""

import copy

import torch


def activation_and_gradient(net, layer, x, score):
    """The output of a layer and the gradient of `score(output)` to it, by ordinary backward passes, one a sample."""
    found = []
    for sample in x:
        clone = copy.deepcopy(net).eval()
        kept = {}

        def hook(_module, _args, output, kept=kept):
            kept["A"] = output.clone()
            kept["A"].retain_grad()
            return kept["A"].clone()

        clone.get_submodule(layer).register_forward_hook(hook)
        score(clone(sample[None].clone())).sum().backward()
        found.append((kept["A"].detach()[0], kept["A"].grad[0]))
    return tuple(torch.stack(ts) for ts in zip(*found, strict=True))
