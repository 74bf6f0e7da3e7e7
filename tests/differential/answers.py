"""What a route answers, and when two answers agree.

An answer is the value of a program and its derivatives: the gradient g, then the gradient of
sum(w g), which is the Hessian times w, and the gradient of sum(u H w), the third derivative along
w and u. The directions w and u are fixed numbers for each program.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Sequence

import numpy as np

from tests.differential import reference
from tests.differential.jets import E1, E2, E3, Jet, seeds
from tests.differential.program import Program

# Relative to the largest entry of the derivative that is compared, but at least to 1. A program of
# 20 instructions with values up to 1e3 rounds by 1e-16 about a thousand times, with factors up to
# 1e3; each order of differentiation divides and subtracts once more. Sums of 3,000 short floats
# lose two to three digits more; a sum that stands still, because its terms are too small for it,
# loses a tenth.
TOLERANCES = {
    "float64": (1e-10, 1e-9, 1e-8, 1e-6),
    "float32": (1e-3, 5e-3, np.inf, np.inf),
    "float16": (1e-2, 3e-2, np.inf, np.inf)}
# Where large numbers cancel, what is left is compared relative to them, with this factor. A number
# in float16 has three digits, so that of 19 - 13 the second is already rounded.
CANCELLED = {"float64": 1e-5, "float32": 1e-5, "float16": 1.0}
LARGEST = (1e5, 1e6, 1e7, 1e8)       # of each order; larger answers are not compared


@dataclass
class Answer:
    """``orders[0]`` is the value; ``orders[n]`` has an array for each leaf.

    ``sizes[n]`` is the largest number of that order among all results on the way.
    """

    orders: list[list[np.ndarray]]
    sizes: list[float]

    @property
    def value(self) -> np.ndarray:
        return self.orders[0][0]


class Mismatch(AssertionError):
    """A route disagrees."""


def precision(program: Program) -> str:
    """The shortest dtype that numbers of the program are rounded to."""
    kinds = [a.dtype for a in program.leaves.values()]
    kinds += [np.dtype(x) for step in program.instructions if step.operator == "astype"
              for x in step.args[1:]]
    kinds += [c.dtype for c in program.constants.values()
              if isinstance(c, np.ndarray) and c.dtype.kind == "f"]
    return min(kinds, key=lambda dtype: dtype.itemsize).name


def directions(program: Program) -> list[list[np.ndarray]]:
    """w and u: of either sign, and none of them small."""
    rng = np.random.default_rng(1)
    return [[rng.uniform(0.5, 1.5, a.shape) * rng.choice([-1, 1], a.shape)
             for a in program.leaves.values()] for _ in range(2)]


def by_reference(program: Program, order: int) -> Answer:
    """One run on jets for each element of each leaf."""
    made: dict[str, Any] = {}
    function = program.function(reference, values=made)
    arrays = program.arrays()
    w, u = directions(program)
    wanted = (0, E3, E1 | E3, E1 | E2 | E3)[:order + 1]
    absent = (E1 | E2, E2, 0)[order - 1]           # symbols that this order does without
    out = function(*(Jet({0: a.astype(np.float64)}) for a in arrays))
    answer = Answer([[out.value], *([np.zeros(a.shape) for a in arrays] for _ in wanted[1:])],
                    [1.0] * len(wanted))
    for i, array in enumerate(arrays):
        for place in range(array.size):
            leaves = [Jet({s: part for s, part in x.parts.items() if not s & absent})
                      for x in seeds(arrays, w, u, i, place)]
            out = function(*leaves)
            for n, subset in enumerate(wanted[1:], start=1):
                answer.orders[n][i].flat[place] = out.part(subset)
            answer.sizes = [max(size, _largest_part(made, subset))
                            for size, subset in zip(answer.sizes, wanted)]
    return answer


def _largest_part(made: dict[str, Any], subset: int) -> float:
    return max((_largest(x.parts[subset]) for x in made.values()
                if isinstance(x, Jet) and subset in x.parts), default=0.0)


def _largest(array: np.ndarray) -> float:
    return float(np.abs(array[np.isfinite(array)]).max(initial=0))


def trusted_orders(answer: Answer) -> int:
    """Up to which order the reference's numbers are small enough to be compared; -1 for none."""
    for order, (arrays, largest) in enumerate(zip(answer.orders, LARGEST)):
        if any(_largest(a) > largest for a in arrays):
            return order - 1
    return len(answer.orders) - 1


def agree(route: str, got: Sequence[Any], answer: Answer, order: int, accuracy: str = "float64",
          loosely: bool = False) -> None:
    """Compare one order of two answers.

    Entries where the reference is infinite or NaN are not compared: the function has no derivative
    there, and the engine's convention, if it has one, has a test of its own. With `loosely`
    neither are those where `got` is: PyTorch has 0 * infinity = NaN in places where the answer
    is 0.
    """
    rtol = TOLERANCES[accuracy][order]
    wanted = answer.orders[order]
    scale = max([1.0, CANCELLED[accuracy] * answer.sizes[order], *map(_largest, wanted)])
    for i, (g, a) in enumerate(zip(got, wanted, strict=True)):
        g = np.asarray(g)
        if g.shape != a.shape:
            raise Mismatch(f"{route}: order {order}, leaf {i}: shape {g.shape}, not {a.shape}")
        compared = np.isfinite(a) & (np.isfinite(g) if loosely else True)
        error = np.where(compared, np.abs(g.astype(np.float64) - a), 0)
        if not (error <= rtol * scale).all():
            raise Mismatch(f"{route}: order {order}, leaf {i}: got\n{g}\n"
                           f"but the reference says\n{a}")


def identical(route: str, what: str, got: Any, wanted: Any) -> None:
    """Compare to the last bit; NaN equals NaN, and 0 equals -0."""
    got, wanted = np.asarray(got), np.asarray(wanted)
    if got.dtype != wanted.dtype or got.shape != wanted.shape:
        raise Mismatch(f"{route}: {what}: {got.dtype} {got.shape}, not {wanted.dtype} "
                       f"{wanted.shape}")
    if not np.array_equal(got, wanted, equal_nan=True):
        raise Mismatch(f"{route}: {what}: got\n{got!r}\nbut must be\n{wanted!r}")
