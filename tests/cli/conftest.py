import json
from dataclasses import dataclass

import pytest

SMALL = ("--model", "timm:test_resnet", "--random-weights")  # half a million weights, ImageNet's labels, 160 pixels


@dataclass
class Ran:
    code: int
    out: str
    err: str

    @property
    def json(self):
        """The one JSON document on stdout; NaN is none."""

        def refuse(constant):
            raise AssertionError(f"{constant} is not JSON")

        return json.loads(self.out, parse_constant=refuse)


@pytest.fixture
def run(capsys, monkeypatch, tmp_path):
    """Run the command line in this process, in a folder of its own."""
    from pellucid.cli import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PELLUCID_DEBUG", raising=False)

    def call(*arguments):
        capsys.readouterr()
        code = main([str(a) for a in arguments])
        said = capsys.readouterr()
        return Ran(code, said.out, said.err)

    return call


@pytest.fixture
def explain(run):
    """`pellucid explain` with a small model, without measuring."""
    return lambda *arguments: run("explain", *arguments, "--no-check", *SMALL)
