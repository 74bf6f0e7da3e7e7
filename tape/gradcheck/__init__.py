"""The gradient checker: derivatives against differences, for your functions and for our operators.

``gradcheck(fn, inputs)`` checks a function; ``python -m tape.gradcheck`` checks every operator
listed in ``tape/gradcheck/cases.py`` and prints a table.

    checker.py    the comparison
    case.py       a call of an operator, and how its inputs are drawn
    cases.py      one of each operator
    numpy_cases.py  those of NumPy's other functions
"""

import sys
import types
from typing import Any

from tape.gradcheck.checker import Worst, gradcheck, worst_error

__all__ = ["Worst", "gradcheck", "worst_error"]


class _Callable(types.ModuleType):
    """``tape.gradcheck`` is this package, and may be called like the function in it."""

    def __call__(self, *args: Any, **kwargs: Any) -> bool:
        return gradcheck(*args, **kwargs)


sys.modules[__name__].__class__ = _Callable
