"""Initial values. Everything random takes a generator, so that a seed fixes a model.

An initialiser takes a generator and a shape, and draws values in float32, which within
`nn.parameters_of("float64")` are widened. A `Scheme` has one for each part that a matrix can play
in a block; the module that owns the matrix knows which part that is.
"""

from __future__ import annotations

from functools import partial, wraps
from typing import Any, Callable, NamedTuple

import numpy as np

from nn.layers.parameter import Parameter, is_without_memory
from tape import hollow

Rng = Any       # numpy.random.Generator, an int seed, or None for fresh entropy
Initialiser = Callable[[Rng, tuple[int, ...]], Parameter]


def drawn(initialiser: Callable[..., Parameter]) -> Callable[..., Parameter]:
    """Decorator of an initialiser: within `without_memory` it draws nothing."""
    @wraps(initialiser)
    def draw(rng: Rng, shape: tuple[int, ...], *args: Any, **settings: Any) -> Parameter:
        if is_without_memory():
            return Parameter(hollow(shape))
        return initialiser(rng, shape, *args, **settings)
    return draw


@drawn
def normal(rng: Rng, shape: tuple[int, ...], std: float) -> Parameter:
    """Independent normal entries with mean 0, float32."""
    return Parameter(np.random.default_rng(rng).standard_normal(shape, np.float32) * np.float32(std))


@drawn
def uniform(rng: Rng, shape: tuple[int, ...], bound: float) -> Parameter:
    """Independent entries from [-bound, bound), float32."""
    return Parameter(((np.random.default_rng(rng).random(shape, np.float32) * 2 - 1)
                      * np.float32(bound)))


def zeros(*shape: int) -> Parameter:
    """Zeros, float32."""
    return Parameter(np.zeros(shape, np.float32))


def ones(*shape: int) -> Parameter:
    """Ones, float32."""
    return Parameter(np.ones(shape, np.float32))


def xavier(rng: Rng, shape: tuple[int, ...]) -> Parameter:
    """Uniform with variance 2 / (n_in + n_out), for a matrix (n_in, n_out).

    An output sums n_in products, a gradient n_out: variance 1/n_in would keep the size of the
    activations, 1/n_out that of the gradients, and this lies between. A uniform entry in +-b has
    variance b^2/3, so b = sqrt(6 / (n_in + n_out)): Glorot and Bengio 2010, eq. 16.
    """
    return uniform(rng, shape, (6 / sum(shape)) ** 0.5)


def he(rng: Rng, shape: tuple[int, ...]) -> Parameter:
    """Normal with variance 2 / n_in, for a matrix (n_in, n_out) in front of a rectifier.

    ReLU zeroes one half of a symmetric input, and with it half of the mean square; the 2 makes up
    for that: He et al. 2015, arXiv:1502.01852, eq. 10.
    """
    return normal(rng, shape, (2 / shape[0]) ** 0.5)


@drawn
def orthogonal(rng: Rng, shape: tuple[int, ...]) -> Parameter:
    """A matrix with orthonormal columns, or rows where it is wide, float32.

    Drawn evenly from all such matrices: Q of the QR decomposition of normal entries, with the signs
    that make the diagonal of R positive, without which the decomposition would choose them. Saxe et
    al. 2014, arXiv:1312.6120, section 3.
    """
    n_in, n_out = shape
    entries = np.random.default_rng(rng).standard_normal((max(shape), min(shape)))
    q, r = np.linalg.qr(entries)                                 # (max, min), (min, min)
    q = q * np.where(np.diag(r) < 0, -1.0, 1.0)
    return Parameter((q if n_in >= n_out else q.T).astype(np.float32))


@drawn
def scaled_residual(rng: Rng, shape: tuple[int, ...], layers: int = 1,
                    std: float = 0.02) -> Parameter:
    """Normal, std / sqrt(layers), for one of so many layers that add to the same residual stream.

    The variances of what is added sum up; the factor keeps their sum from growing with the depth:
    Radford et al. 2019 (GPT-2), section 2.3. Drawn in float64 and rounded to float32 once.
    """
    entries = np.random.default_rng(rng).standard_normal(shape) * (std * layers ** -0.5)
    return Parameter(entries.astype(np.float32))


class Scheme(NamedTuple):
    """An initialiser for each part that a matrix can play.

    Attributes
    ----------
    linear : of a matrix in general.
    rectified : in front of an activation that is a kind of rectifier.
    residual : of a layer whose result is added to the residual stream.
    """

    linear: Initialiser
    rectified: Initialiser
    residual: Initialiser


SCHEMES = ("gpt2", "orthogonal", "uniform", "xavier-he")


def scheme(name: str, n_layer: int) -> Scheme | None:
    """The scheme of this name for a stack of `n_layer` blocks; None of "uniform".

        uniform      each layer keeps the values that it is made with (see `Linear`)
        gpt2         normal, std 0.02; `scaled_residual` for the two outputs of each block
        xavier-he    `xavier`; `he` in front of a rectifier
        orthogonal   `orthogonal`
    """
    schemes = {
        "uniform": None,
        "gpt2": Scheme(scaled_residual, scaled_residual,
                       partial(scaled_residual, layers=2 * n_layer)),
        "xavier-he": Scheme(xavier, he, xavier),
        "orthogonal": Scheme(orthogonal, orthogonal, orthogonal)}
    return schemes[name]
