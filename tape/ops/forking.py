"""What joins tapes that were recorded side by side; see `tape.parallel_map`.

`fork` stands on the tape behind all of their records, and `branch` passes each of their results on,
from there. So the walk back comes to a fork when the gradients of all the results are complete, and may
walk the tapes behind them in threads. The values and the derivatives are those of the identity.
"""

import numpy as np

from tape.primitive import Primitive


def _fork(x, /, branches, floor):
    """A zero; `branches` are weak sets of the last records of each tape, which begin after `floor`."""
    return np.float32(0)


# The rule only names what is kept: the walk knows the operator.
fork = Primitive(_fork, (lambda g, branches, floor: None,), name="fork")


def _branch(out, start, /):
    return out


branch = Primitive(_branch, (lambda g: g, lambda g: np.float32(0)), name="branch")
