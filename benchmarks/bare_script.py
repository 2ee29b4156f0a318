"""What a script without Pellucid does for one picture: the least that `pellucid explain` could cost."""

import sys

import numpy as np
import timm
import torch
from PIL import Image
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Normalize, Resize, ToTensor


def main(checkpoint: str, picture: str) -> None:
    """Load the embedded weights by order, read and prepare the picture, forward and backward of the top logit."""
    model = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    stored = torch.load(checkpoint, map_location="cpu", weights_only=True)
    model.load_state_dict(dict(zip(model.state_dict(), stored.values(), strict=True)))
    prepare = Compose(
        [
            Resize(256, InterpolationMode.BICUBIC),
            CenterCrop(224),
            ToTensor(),
            Normalize((127 / 255,) * 3, (128 / 255,) * 3),
        ]
    )
    x = prepare(Image.open(picture).convert("RGB"))[None].requires_grad_()
    score, top = model(x)[0].max(0)
    score.backward()
    print(int(top), float(np.abs(x.grad.numpy()).sum()))


if __name__ == "__main__":
    main(*sys.argv[1:])
