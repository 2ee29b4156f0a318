"""What a dictionary of concepts is: directions `D` of a layer, and how much of each there is at a place.

    A ~ U D + b        A (n, C) activations, U (n, K) codes, D (K, C) directions of unit length, b (C,) offset

Every kind decodes by this one linear formula; they differ in what they ask of `U` and `D`, and in how they encode.
The scikit-learn contract holds: `fit`, `transform` (= `encode`), `inverse_transform` (= `decode`), parameters in the
constructor, what is learned in attributes with a trailing underscore.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_array, check_is_fitted, validate_data

from pellucid.errors import DataError, MethodError
from pellucid.registry import Registry

Array = NDArray[np.float32]

_CHUNK = 8192  # rows encoded at a time, so that memory does not grow with the data


class Dictionary(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator, ABC):  # type: ignore[misc]
    """Base of all dictionaries: what is common to fitting, encoding, decoding and keeping them.

    Args:
        count: number of concepts.
        seed: of whatever is random.

    Attributes:
        components_: `D`, `(K, C)`, rows of unit length.
        offset_: `b`, `(C,)`.
    """

    name: ClassVar[str]
    about: ClassVar[str]
    paper: ClassVar[str]
    nonnegative: ClassVar[bool] = True  # whether codes are; where they are not, a concept has two ends
    positive_input: ClassVar[bool] = False  # whether activations must be >= 0
    kept: ClassVar[tuple[str, ...]] = ("components_", "offset_")  # arrays from which codes can be computed again

    components_: Array
    offset_: Array
    n_features_in_: int

    def __init__(self, count: int = 25, seed: int = 0) -> None:
        self.count = count
        self.seed = seed

    def fit(self, X: ArrayLike, y: Any = None) -> Self:
        """Find the concepts of activations `(n, C)`.

        Raises:
            DataError: fewer rows than concepts, values below zero where they must not be, or nothing that varies.
            ValueError: no finite matrix of numbers, as scikit-learn says it.
        """
        A = validate_data(self, X, dtype=np.float32, ensure_min_samples=2)
        self._check(A)
        self._fit(A)
        return self

    def encode(self, A: ArrayLike) -> Array:
        """Codes `(n, K)` of activations `(n, C)`."""
        check_is_fitted(self, "components_")
        rows = validate_data(self, A, dtype=np.float32, reset=False)
        parts = [self._encode(rows[i : i + _CHUNK]) for i in range(0, len(rows), _CHUNK)]
        return np.concatenate(parts).astype(np.float32, copy=False)

    def decode(self, U: ArrayLike) -> Array:
        """Activations `(n, C)` that codes `(n, K)` stand for: `U D + b`."""
        check_is_fitted(self, "components_")
        codes = check_array(U, dtype=np.float32)
        decoded: Array = codes @ self.components_ + self.offset_
        return decoded

    def transform(self, X: ArrayLike) -> Array:
        """`encode`, by scikit-learn's name."""
        return self.encode(X)

    def inverse_transform(self, X: ArrayLike) -> Array:
        """`decode`, by scikit-learn's name."""
        return self.decode(X)

    def state(self) -> tuple[dict[str, Any], dict[str, Array]]:
        """All that `restore` needs: plain values, and arrays by name."""
        check_is_fitted(self, "components_")
        return {"by": self.name, "parameters": self.get_params()}, {name: getattr(self, name) for name in self.kept}

    @property
    def _n_features_out(self) -> int:
        return len(self.components_)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.positive_only = self.positive_input
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags

    def _check(self, A: Array) -> None:
        count, rows = self.count, len(A)
        if not isinstance(count, int | np.integer) or count < 1:
            raise DataError(f"Give the number of concepts, at least 1; got {count!r}.")
        if rows < count:
            raise DataError(
                f"{count} concepts can't be found in n_samples = {rows} activations: ask for fewer, or give more "
                "pictures."
            )
        lowest = float(A.min())
        if self.positive_input and lowest < 0:
            raise DataError(
                f"Negative values in data passed to {self.name} (down to {lowest:.3g}), which needs activations of at "
                "least 0: use semi-nmf or sae, or a layer behind a ReLU."
            )
        if not np.ptp(A, axis=0).any():
            raise DataError(f"All {rows} activations are the same, so there is nothing to find: choose another layer.")

    @abstractmethod
    def _fit(self, A: Array) -> None:
        """Set what is kept."""

    @abstractmethod
    def _encode(self, A: Array) -> Array:
        """Codes of some rows."""

    def _keep(self, directions: ArrayLike, offset: ArrayLike | None = None) -> None:
        """Directions at unit length, and the offset (default: none). A direction of nothing stays nothing."""
        D = np.asarray(directions, np.float64)
        D = D / np.maximum(np.linalg.norm(D, axis=1, keepdims=True), 1e-30)
        self.components_ = D.astype(np.float32)
        self.offset_ = np.zeros(D.shape[1], np.float32) if offset is None else np.asarray(offset, np.float32)


D = TypeVar("D", bound=type[Dictionary])
DICTIONARIES: Registry[type[Dictionary]] = Registry("concepts by", plural=True, listing=True)


def dictionary(name: str, *, about: str, paper: str) -> Callable[[D], D]:
    """Register a kind of dictionary under its name on the command line."""
    return DICTIONARIES.register(name, about=about, paper=paper)


def get_dictionary(name: str, **parameters: Any) -> Dictionary:
    """A dictionary by name, with parameters.

    Raises:
        MethodError: unknown name (near misses are listed) or parameter.
    """
    key = DICTIONARIES.key(name)
    cls = DICTIONARIES[key]
    if unknown := sorted(set(parameters) - set(cls._get_param_names())):
        known = ", ".join(cls._get_param_names())
        raise MethodError(f"Concepts by {key!r} have no parameter {unknown[0]!r}; they have {known}.")
    return cls(**parameters)


def restore(meta: Mapping[str, Any], arrays: Mapping[str, Array]) -> Dictionary:
    """The inverse of `Dictionary.state`: it gives the same codes."""
    made = get_dictionary(meta["by"], **meta["parameters"])
    for name in made.kept:
        setattr(made, name, np.asarray(arrays[name], np.float32))
    made.n_features_in_ = made.components_.shape[1]
    return made
