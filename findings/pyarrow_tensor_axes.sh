#!/bin/sh
# pyarrow 26.0.1: a stack of pictures whose axes were moved (channels first seen as channels last, the usual
# `transpose(0, 2, 3, 1)`) does not come back from a tensor column. `FixedShapeTensorArray.from_numpy_ndarray` notes a
# permutation, `to_numpy_ndarray` applies its inverse: other shape, other pixels, no error. Permutations that are their
# own inverse (the last two axes exchanged) and contiguous copies are right. Through Parquet it stays so.
# Prints the version and the shapes; fails if the behaviour changes.
set -eu
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
python3 -m venv "$home/venv"
"$home/venv/bin/pip" install --quiet "pyarrow==26.0.1" "numpy==2.4.6"
"$home/venv/bin/python" - "$home/t.parquet" <<'PY'
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

print("pyarrow", pa.__version__)
first = np.arange(2 * 3 * 4 * 5.0).reshape(2, 3, 4, 5)  # two pictures, three channels first
last = first.transpose(0, 2, 3, 1)
column = pa.FixedShapeTensorArray.from_numpy_ndarray(last)
pq.write_table(pa.table({"pictures": column}), sys.argv[1])
read = pq.read_table(sys.argv[1])["pictures"].combine_chunks()
print("written:", last.shape, column.type)
print("read   :", read.to_numpy_ndarray().shape)
copied = pa.FixedShapeTensorArray.from_numpy_ndarray(np.ascontiguousarray(last)).to_numpy_ndarray()
exchanged = first.transpose(0, 1, 3, 2)
assert np.array_equal(copied, last)
assert np.array_equal(pa.FixedShapeTensorArray.from_numpy_ndarray(exchanged).to_numpy_ndarray(), exchanged)
assert read.to_numpy_ndarray().shape == (2, 5, 3, 4), "the behaviour has changed"
PY
