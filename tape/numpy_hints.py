"""What to write instead of a NumPy function or an array's method that has no derivative rule here.

Written by hand, a line each; ``tests/test_numpy_namespace.py`` asks that every function of NumPy's that
takes arrays is an operator, a constant, or in this table.
"""

from __future__ import annotations

_SEARCH = "It chooses elements by their values: choose them on t.numpy(), and index t with the places"
_COUNTS = "Counts have no derivative; a smooth one is a sum of tape.sigmoid((t - edge) / width)"
_WRITES = "Tensors are not changed in place. A new one is np.where(mask, value, t)"
_COMPLEX = "Tensors are real, and its result is complex"
_STRUCTURE = "It gives integers or text about values; ask for them of t.numpy()"
_LOOP = "Write the loop: np.stack([f(row) for row in t])"
_ROOTS = "It goes by eigenvalues of a matrix that are complex; find the root on t.numpy(), and " \
         "differentiate p(root) = 0: droot/dc = -(dp/dc) / p'(root)"

HINTS: dict[str, str] = {
    "fft": "Tensors are real, and its result is complex; for a short series multiply by the matrix of "
           "cosines and that of sines, np.cos(2 * np.pi * np.outer(k, n) / N) @ t",
    # several results, or a result in two parts
    "divmod": "Write np.floor_divide(x, y), which is a constant, and np.remainder(x, y)",
    "modf": "Write np.trunc(x), which is a constant, and x - np.trunc(x)",
    "frexp": "Write e = np.floor(np.log2(np.abs(t.numpy()))) + 1 and t * 2.0 ** -e",
    # special functions
    "i0": "Its derivative is the Bessel function I1, which NumPy lacks: "
          "tape.implements(np.i0)(tape.primitive(scipy.special.i0, lambda g, x: g * "
          "scipy.special.i1(x)))",
    "spacing": "The distance of neighbouring floats is a step function; take it of t.numpy()",
    "nextafter": "The next float is a matter of rounding; take it of t.numpy()",
    # order statistics with what is missing
    "nanmedian": "Choose the elements first, np.median(t[~np.isnan(t)]), row by row",
    "nanquantile": "Choose the elements first, np.quantile(t[~np.isnan(t)], q), row by row",
    "nanpercentile": "Choose the elements first, np.percentile(t[~np.isnan(t)], q), row by row",
    "sort_complex": "Tensors are real: np.sort(t)",
    # complex numbers
    "angle": _COMPLEX + "; of a point (x, y) it is np.arctan2(y, x)",
    # sets and searches
    "unique": _SEARCH, "unique_all": _SEARCH, "unique_counts": _SEARCH, "unique_inverse": _SEARCH,
    "unique_values": _SEARCH, "union1d": _SEARCH, "intersect1d": _SEARCH, "setdiff1d": _SEARCH,
    "setxor1d": _SEARCH, "trim_zeros": _SEARCH,
    # counting
    "histogram": _COUNTS, "histogram2d": _COUNTS, "histogramdd": _COUNTS,
    "histogram_bin_edges": _COUNTS,
    "bincount": "Counts have no derivative; with weights w write np.equal.outer(np.arange(n), ids) @ w",
    # what writes into its argument
    "copyto": _WRITES, "fill_diagonal": _WRITES + ", with mask = np.eye(n, dtype=bool)",
    "place": _WRITES, "put": _WRITES, "putmask": _WRITES,
    "put_along_axis": _WRITES + ", with a mask made by np.put_along_axis on an array of zeros",
    "insert": "Write np.concatenate([t[:i], values, t[i:]])",
    # functions of functions
    "apply_along_axis": _LOOP, "apply_over_axes": _LOOP + "; or give the axes to the reduction",
    "piecewise": "Write np.select([condition, ...], [f(t), ...], default)",
    "geomspace": "Write np.exp(np.linspace(np.log(start), np.log(stop), num))",
    # polynomials
    "poly": "Multiply the factors: c = np.convolve(c, np.stack([1, -root])) for each root",
    "polyadd": "Give the coefficients one length by np.pad, and add them",
    "polysub": "Give the coefficients one length by np.pad, and subtract them",
    "polymul": "Write np.convolve(p, q)",
    "polyder": "Write p[:-1] * np.arange(len(p) - 1, 0, -1)",
    "polyint": "Write np.append(p / np.arange(len(p), 0, -1), constant)",
    "polydiv": "Divide the values: np.polyval(p, x) / np.polyval(q, x)",
    "polyfit": "Solve the normal equations: with A = np.vander(x, deg + 1), "
               "np.linalg.solve(A.T @ A, A.T @ y)",
    "roots": _ROOTS,
    # types, bits and dates
    "busday_count": _STRUCTURE, "busday_offset": _STRUCTURE, "is_busday": _STRUCTURE,
    "datetime_as_string": _STRUCTURE,
}

METHODS: dict[str, str] = {
    "sort": "in place there is none: tape.sort(t) gives a sorted copy",
    "partition": "in place there is none: tape.partition(t, kth) gives a new tensor",
    "fill": "a tensor is not changed in place: np.full_like(t, value) makes one; for a leaf "
            "t.data[...] = value",
    "put": "a tensor is not changed in place: np.where(mask, value, t) makes one",
    "itemset": "a tensor is not changed in place: np.where(mask, value, t) makes one",
    "resize": "in place there is none: tape.resize(t, shape) gives a new tensor",
    "setfield": "a tensor is not changed in place: np.where(mask, value, t) makes one",
    "setflags": "a tensor's array is t.data, which is read-only where it was computed",
    "byteswap": "bytes have no derivative: t.numpy().byteswap()",
    "getfield": "bytes have no derivative: t.numpy().getfield(...)",
    "base": "whether memory is shared is not shown; t.numpy() is the array",
    "ctypes": "the memory belongs to the tape: t.numpy().ctypes",
    "flags": "that of the array: t.numpy().flags",
    "strides": "that of the array: t.numpy().strides",
    "itemsize": "that of the array: t.dtype.itemsize",
    "nbytes": "that of the array: t.numpy().nbytes",
    "to_device": "arrays of NumPy are on the CPU, and so are tensors",
    "flat": "t.ravel() for the elements in order",
    "dump": "np.save(file, t) or pickle.dump(t, file)",
    "dumps": "pickle.dumps(t)",
    "tobytes": "of the array: t.numpy().tobytes()", "tostring": "of the array: t.numpy().tobytes()",
    "tofile": "of the array: t.numpy().tofile(file)",
    "nonzero": "indices are no tensors: np.nonzero(t)",
    "searchsorted": "indices are no tensors: np.searchsorted(t, values)",
    "argpartition": "indices are no tensors: np.argpartition(t, kth)",
    "choose": "np.choose(t.numpy(), choices), of integers",
    "compress": "np.compress(condition, t)",
    "copy": "t.detach() for a copy without a tape, np.copy(t) for one on it",
    "real": "tensors are real: t", "imag": "tensors are real: np.zeros_like(t)",
    "conj": "tensors are real: t", "conjugate": "tensors are real: t",
}
