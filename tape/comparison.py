"""Operators that compare: true or false by element, without a derivative."""

from __future__ import annotations

import numpy as np

from tape.primitive import Primitive
from tape.promotion import plain


class Comparison(Primitive):
    """True or false by element, without a derivative: of Tensors an array, of Nodes a Node."""

    def __init__(self, ufunc: np.ufunc, symbol: str = ""):
        super().__init__(ufunc, (None,) * ufunc.nin, symbol=symbol)

    def __call__(self, *operands):
        return super().__call__(*map(plain, operands))

    def as_operator(self, *operands):
        """The same inside a function made of operators: of Tensors a Tensor, which a trace has too."""
        return super().__call__(*operands)
