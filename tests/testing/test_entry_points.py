"""Methods, players, targets, sources and results of other packages are found by their entry points."""

import subprocess
import sys
from pathlib import Path

PACKAGE = """
from dataclasses import dataclass
from contextlib import contextmanager
from typing import ClassVar

from pellucid.heatmaps import method
from pellucid.heatmaps.cam import ActivationGradientCAM
from pellucid.importance import FEATURES, Patches
from pellucid.models.sources import source
from pellucid.models.targets import ScoresTarget, target
from pellucid.verbs.request import REQUESTS, Maker, Request


@method("outside-cam", family="of another house", needs="gradients, a layer", cost="1 forward", paper="none")
@dataclass(frozen=True, kw_only=True)
class OutsideCAM(ActivationGradientCAM):
    def combine(self, A, G):
        return A.sum(dim=1)


@dataclass(frozen=True, kw_only=True)
class Quarters(Patches):
    kind: ClassVar[str] = "quarters"


FEATURES["quarters"] = Quarters


@target("spread", form="spread")
@dataclass(frozen=True)
class Spread(ScoresTarget):
    def __call__(self, output):
        return self.reading.class_scores(output).std(dim=1)

    def spec(self):
        return "spread"

    @classmethod
    def read(cls, text):
        return cls() if text == "spread" else None


@source("outside", "networks of another house")
def build(name, classes, pretrained):
    raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class SpanRequest(Request):
    verb: ClassVar[str] = "span"


REQUESTS["outside-span/1"] = Maker(SpanRequest, None, None, None)
"""

METRIC = """
from pellucid.evaluation.banks import RankCurves
from pellucid.evaluation.metrics import metric
from pellucid.importance import ESTIMATORS
from pellucid.importance.estimators import Ablation


@metric("first-fall", "faithfulness", "higher", RankCurves(), paper="an example")
def first_fall(found):
    "How far the first step falls."
    return float(found.morf[0] - found.morf[1])


ESTIMATORS["again"] = Ablation
"""

POINTS = """[pellucid.methods]
outside-cam = outside_package
broken = package_that_is_not_there

[pellucid.players]
quarters = outside_package

[pellucid.targets]
spread = outside_package

[pellucid.estimators]
again = outside_metric

[pellucid.metrics]
first-fall = outside_metric

[pellucid.sources]
outside = outside_package

[pellucid.results]
span = outside_package
"""


def test_they_are_found_and_a_broken_one_is_left_out_with_a_warning(tmp_path):
    (tmp_path / "outside_package.py").write_text(PACKAGE)
    (tmp_path / "outside_metric.py").write_text(METRIC)
    about = tmp_path / "outside_package-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: outside-package\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(POINTS)
    code = (
        f"import sys; sys.path.append({str(tmp_path)!r})\n"
        "from pellucid.heatmaps import METHODS, get_method\n"
        "from pellucid.importance import get_estimator, get_players\n"
        "from pellucid.evaluation.metrics import METRICS\n"
        "from pellucid.models.sources import SOURCES\n"
        "from pellucid.models.targets import parse_target\n"
        "from pellucid.verbs.kinds import REQUESTS\n"
        "print(get_method('outside-cam').family, list(METHODS)[-1], get_players('quarters').kind)\n"
        "print(parse_target('spread'), SOURCES['outside'].about, REQUESTS['outside-span/1'].request.verb)\n"
        "print(METRICS.find('first-fall').category, get_estimator('again').name)\n"
    )
    environment = {"PYTHONPATH": str(Path(__file__).parents[2] / "src"), "PATH": "", "OMP_NUM_THREADS": "1"}
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert (
        ran.stdout
        == "of another house outside-cam quarters\nspread networks of another house span\nfaithfulness ablation\n"
    )
    assert "'broken' of outside-package is left out: ModuleNotFoundError" in ran.stderr
