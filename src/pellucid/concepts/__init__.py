"""Concepts: directions of a layer, found in data or given by examples; how much of each there is, and what it does.

`Dictionary` is the one interface (fit, encode, decode); each kind is a small class, see `DICTIONARIES`.
"""

from pellucid._room import called_as_verb
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

called_as_verb(__name__)
