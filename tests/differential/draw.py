"""Random programs: leaves of shapes that broadcast, then up to twenty instructions, then a sum."""

from __future__ import annotations

import numpy as np

from tests.differential import draw_arrays, draw_moves, draw_numbers, draw_products
from tests.differential.builder import Builder, Rejected
from tests.differential.program import Program

MOST_INSTRUCTIONS = 20
TABLE = {**draw_numbers.TABLE, **draw_arrays.TABLE, **draw_moves.TABLE,
         **draw_products.TABLE}
DRAWS = list(TABLE)
WEIGHTS = np.array(list(TABLE.values())) / sum(TABLE.values())
PRECISIONS = ([np.float64], [np.float32], [np.float64, np.float32], [np.float16])
SHARES = (0.8, 0.1, 0.05, 0.05)


def draw_program(seed: int, number: int) -> Program:
    """Program `number` of the run with this seed; the same at every call."""
    rng = np.random.default_rng([seed, number])
    while True:
        try:
            return _attempt(rng, (seed, number))
        except Rejected:
            pass


def _attempt(rng: np.random.Generator, seed: tuple[int, int]) -> Program:
    dtypes = PRECISIONS[rng.choice(len(PRECISIONS), p=SHARES)]
    b = Builder(rng, dtypes)
    for shape in _shapes(b):
        b.leaf(shape)
    if dtypes != [np.float64] and b.chance(0.4):
        draw_moves.many_copies(b)
    length = int(rng.integers(1, MOST_INSTRUCTIONS + 1))
    if dtypes == [np.float16]:
        length = min(length, 6)           # rounding adds up
    while len(b.instructions) < length:
        draw = DRAWS[rng.choice(len(DRAWS), p=WEIGHTS)]
        before = len(b.instructions)
        try:
            draw(b)
        except Rejected:
            del b.instructions[before:]      # of a few, some may have been taken
            _forget(b)
    program = b.program(_terms(b), seed)
    if len(program.instructions) > MOST_INSTRUCTIONS:
        raise Rejected("too long")
    return program


def _forget(b: Builder) -> None:
    """Leave out the values whose instructions were taken back."""
    made = {step.result for step in b.instructions}
    b.shown = [name for name in b.shown if not name.startswith("v") or name in made]
    b.tensors = {name for name in b.tensors if not name.startswith("v") or name in made}


def _shapes(b: Builder) -> list[tuple]:
    """Shapes that broadcast against each other: pieces of one frame of up to four axes."""
    rank = b.some([0, 1, 1, 2, 2, 2, 3, 3, 4])
    sizes = [1, 2, 2, 3, 3] if b.chance(0.95) else [0, 1, 2]
    frame = tuple(int(b.some(sizes)) for _ in range(rank))
    while np.prod(frame) > 12:
        frame = frame[1:]
    shapes = [frame]
    for _ in range(b.rng.integers(0, 3)):
        shapes.append(draw_numbers.subshape(b, frame))
    return shapes


def _terms(b: Builder) -> list[tuple[str, str]]:
    """Pairs of values, or a value and fixed weights: most of the values that nothing else uses."""
    used = {name for step in b.instructions for name in step.needs()}
    ends = [n for n in b.shown if n not in used and n.startswith("v") and n in b.tensors]
    names = [str(b.some(sorted(b.tensors & set(b.shown))))]
    names += [ends[i] for i in b.rng.permutation(len(ends))[:b.rng.integers(1, 7)]]
    terms = []
    for name in names:
        shape = b.shape(name)
        partners = [n for n in b.shown if draw_numbers.fits(b.shape(n), shape)]
        if b.chance(0.4) and b.array(name).size:
            terms.append((name, str(b.some(partners))))
        else:
            weights = np.asarray(b.numbers(shape, "normal")).astype(b.leaf_dtypes[0])
            terms.append((name, str(b.constant(weights))))
    return terms
