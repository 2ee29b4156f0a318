"""timm and torchvision come without torch's compiler, which is there as ever once it is asked for."""

import subprocess
import sys

import pytest

pytest.importorskip("torch")

DEFERRED = """
import sys
from pellucid.models.sources import libraries

timm, vision = libraries.timm(), libraries.torchvision()
assert not [name for name in sys.modules if name.startswith("torch._dynamo")], "it is loaded"
assert "sympy" not in sys.modules

import torch
from timm.models.naflexvit import NaFlexRopeIterator
from torchvision.ops import roi_align
from torchvision.ops.roi_align import is_compile_supported

x, boxes = torch.arange(36.0).reshape(1, 1, 6, 6), torch.tensor([[0.0, 0, 0, 4, 4]])
assert float(roi_align(x, boxes, 1, aligned=True)) == 10.5  # the mean of the ramp over the box
assert isinstance(is_compile_supported("cpu"), bool)
assert "torch._dynamo.utils" in sys.modules  # since that was called
assert torch._dynamo.config is sys.modules["torch._dynamo.config"]
assert callable(NaFlexRopeIterator.__next__)
"""

ASKED = """
import sys
import torch
from pellucid.models.sources import libraries

calls = []

def noted(a, b=1):
    "Said."
    calls.append((a, b))
    return a + b

with libraries.compiler_deferred():
    plain = torch.compiler.disable(noted)
    assert plain.__doc__ == "Said." and type(sys.modules["torch._dynamo"]).__name__ == "_StandIn"
    with libraries.compiler_deferred():  # again, as another thread may
        pass
    import torch._dynamo.config  # what a stand-in has not
    assert type(sys.modules["torch._dynamo"]).__name__ == "module"
    whole = torch.compiler.disable(noted)
assert type(sys.modules["torch._dynamo"]).__name__ == "module"
assert plain(2, b=3) == whole(2, b=3) == 5 and calls == [(2, 3)] * 2

def broken(x):
    return torch.compile(lambda y: plain(y) * 2, backend="eager")(x)

assert float(broken(torch.ones(()))) == 4.0  # it is left out of what is compiled
with libraries.compiler_deferred():
    assert type(sys.modules["torch._dynamo"]).__name__ == "module"  # there already
"""


@pytest.mark.parametrize("script", [DEFERRED, ASKED], ids=["deferred", "asked"])
def test_the_compiler_waits_until_it_is_asked(script):
    pytest.importorskip("timm")
    pytest.importorskip("torchvision")
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
