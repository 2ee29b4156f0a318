"""What the C library is told, and that nothing is said where there is nobody to tell."""

import sys
from types import SimpleNamespace

import pytest

from pellucid.engine import heap


@pytest.mark.parametrize("accepts", [True, False])
def test_the_library_is_told_never_to_give_memory_back(monkeypatch, accepts):
    told = []
    library = SimpleNamespace(mallopt=lambda *given: told.append(given) or int(accepts))
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(heap.ctypes, "CDLL", lambda _name: library)
    assert heap.keep_freed_memory() is accepts
    assert told == ([(-4, 0), (-1, 2**31 - 1)] if accepts else [(-4, 0)])  # M_MMAP_MAX, M_TRIM_THRESHOLD of malloc.h


def test_elsewhere_nothing_is_done(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(heap.ctypes, "CDLL", None)
    assert not heap.keep_freed_memory()
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(heap.ctypes, "CDLL", lambda _name: SimpleNamespace())
    assert not heap.keep_freed_memory()
