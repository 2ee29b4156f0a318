"""Methods and players of other packages are found by their entry points."""

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


@method("outside-cam", family="of another house", needs="gradients, a layer", cost="1 forward", paper="none")
@dataclass(frozen=True, kw_only=True)
class OutsideCAM(ActivationGradientCAM):
    def combine(self, A, G):
        return A.sum(dim=1)


@dataclass(frozen=True, kw_only=True)
class Quarters(Patches):
    kind: ClassVar[str] = "quarters"


FEATURES["quarters"] = Quarters
"""

POINTS = """[pellucid.methods]
outside-cam = outside_package
broken = package_that_is_not_there

[pellucid.players]
quarters = outside_package
"""


def test_they_are_found_and_a_broken_one_is_left_out_with_a_warning(tmp_path):
    (tmp_path / "outside_package.py").write_text(PACKAGE)
    about = tmp_path / "outside_package-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: outside-package\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(POINTS)
    code = (
        f"import sys; sys.path.append({str(tmp_path)!r})\n"
        "from pellucid.heatmaps import METHODS, get_method\n"
        "from pellucid.importance import get_players\n"
        "print(get_method('outside-cam').family, list(METHODS)[-1], get_players('quarters').kind)\n"
    )
    environment = {"PYTHONPATH": str(Path(__file__).parents[2] / "src"), "PATH": "", "OMP_NUM_THREADS": "1"}
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert ran.stdout == "of another house outside-cam quarters\n"
    assert "'broken' of outside-package is left out: ModuleNotFoundError" in ran.stderr
