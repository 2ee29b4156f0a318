#!/bin/sh
# matplotlib 3.11.2 (Agg): Ctrl-C during a drawing becomes `ValueError: Invalid affine transformation matrix`. The C++ code
# asks a transform for its matrix through the Python method `__array__`; whatever is raised in there, KeyboardInterrupt too,
# is dropped and replaced. A program that handles a bad figure with `except Exception` goes on and is not cancelled.
# Here the signal comes while that method runs; a key pressed by hand hits it now and then.
# Prints the versions and the error; fails if the behaviour changes.
set -eu
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
python3 -m venv "$home/venv"
"$home/venv/bin/pip" install --quiet "matplotlib==3.11.2" "numpy==2.4.6"
MPLCONFIGDIR="$home" "$home/venv/bin/python" - <<'PY'
import signal

import matplotlib

matplotlib.use("Agg")
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.path import Path
from matplotlib.transforms import Affine2D

signal.signal(signal.SIGINT, signal.default_int_handler)  # as in a terminal; a shell's background job ignores it


class Interrupted(Affine2D):
    def __array__(self, *args, **kwargs):
        signal.raise_signal(signal.SIGINT)
        return super().__array__(*args, **kwargs)


print("matplotlib", matplotlib.__version__)
renderer = RendererAgg(10, 10, 72)
try:
    renderer.draw_path(renderer.new_gc(), Path([[0, 0], [1, 1]]), Interrupted())
    raised = None
except BaseException as error:
    raised = error
print("Ctrl-C in draw_path raises", type(raised).__name__, "-", raised, "- cause:", raised.__cause__ or raised.__context__)
assert isinstance(raised, ValueError) and raised.__cause__ is None and raised.__context__ is None, "the behaviour has changed"
PY
