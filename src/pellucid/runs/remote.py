"""Inputs in an object store (`s3://`, `gs://`, `memory://`, ...), fetched when their turn comes: through fsspec, or by
pyarrow itself where fsspec lacks the package for a store that pyarrow knows."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from pellucid.errors import MediaError
from pellucid.keep.scratch import scratch

_SETTINGS = re.compile(r"\?\w+=")


def is_remote(source: str) -> bool:
    """Whether a source is an address in an object store."""
    return "://" in source


@contextmanager
def fetched(source: str) -> Iterator[str]:
    """A file that holds what the store has under an address, as long as it is needed.

    Raises:
        MediaError: there is nothing, it cannot be reached, or what reads such addresses is not installed.
    """
    try:
        import fsspec
    except ImportError as error:
        raise MediaError(f'{source} is in an object store: pip install "pellucid[batch]".') from error
    try:
        with _opened(fsspec, source) as file:
            data = file.read()
    except Exception as error:  # each store has errors of its own
        raise MediaError(f"{source} can't be fetched ({type(error).__name__}: {error}).") from error
    with scratch() as folder:
        path = Path(folder, os.path.basename(source) or hashlib.sha256(source.encode()).hexdigest()[:8])
        path.write_bytes(data)
        yield str(path)


def _opened(fsspec: Any, source: str) -> Any:
    try:
        return fsspec.open(source, "rb")
    except ImportError as error:
        try:
            return _streamed(source)
        except ValueError:  # not of pyarrow's stores: what fsspec wants is what is missing
            raise error from None


def _streamed(source: str) -> Any:
    """By pyarrow, which takes the name of a bucket from an address, and the name of an object as it is written there:
    with blanks, percent signs and whatever else it has."""
    scheme, _, rest = source.partition("://")
    if _SETTINGS.search(source):  # of the store, such as `?endpoint_override=...`
        files, path = _store(source)
        return files.open_input_stream(path)
    files, _ = _store(f"{scheme}://{rest.partition('/')[0]}")
    return files.open_input_stream(rest)


@cache
def _store(address: str) -> tuple[Any, str]:
    from pyarrow import fs

    found: tuple[Any, str] = fs.FileSystem.from_uri(address)
    return found
