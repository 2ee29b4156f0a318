"""scikit-learn, imported when it is needed (it takes a second), and without a trace in the global random state."""

from __future__ import annotations

import random
from importlib import import_module
from typing import Any


def learn(module: str) -> Any:
    """`sklearn.MODULE`. Its first import draws from `random`, which is the user's: that state is put back."""
    state = random.getstate()
    try:
        return import_module(f"sklearn.{module}")
    finally:
        random.setstate(state)
