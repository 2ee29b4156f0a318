"""Concepts: directions of a layer, found in data or given by examples; how much of each there is, and what it does.

`Dictionary` is the one interface (fit, encode, decode); each kind is a small class, see `DICTIONARIES`.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import Any

from pellucid.concepts.autoencoder import BatchTopKSAE, TopKSAE
from pellucid.concepts.dictionary import DICTIONARIES, Dictionary, get_dictionary, restore
from pellucid.concepts.factorise import ICA, NMF, PCA, KMeans, Random, SemiNMF

__all__ = [
    "DICTIONARIES",
    "ICA",
    "NMF",
    "PCA",
    "BatchTopKSAE",
    "Dictionary",
    "KMeans",
    "Random",
    "SemiNMF",
    "TopKSAE",
    "get_dictionary",
    "restore",
]


class _Room(ModuleType):
    """A module that is called as the verb of its name, which lives above it, in `pellucid.verbs`."""

    def __call__(self, *args: Any, **settings: Any) -> Any:
        return import_module("pellucid.verbs.concepts").concepts(*args, **settings)


sys.modules[__name__].__class__ = _Room
