"""Recurrent layers: a state that is carried from one step of a sequence to the next.

`RNN`, `LSTM` and `GRU` differ in one step, which each class writes beside its formula. What they share,
the stack of layers and the loop over time, is in `Recurrent`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

import tape
from nn.layers.dropout import Dropout
from nn.layers.init import Rng, zeros
from nn.layers.linear import Linear, is_plain
from nn.layers.module import Module
from nn.layers.parameter import Parameter
from tape import Tensor

State = tuple[Any, ...]         # (h,), of an LSTM (h, c); each (L, B, H), of one layer (B, H)


class RecurrentLayer(Module):
    """The weights of one layer, for `gates` vectors of length H at each step.

    ``input`` is W (C, gates H) with the bias b, ``hidden`` is U (H, gates H).
    """

    candidate_bias: Parameter           # a of a GRU, which alone has one

    def __init__(self, n_in: int, n_hidden: int, gates: int, rng: Rng = None):
        self.input = Linear(n_in, gates * n_hidden, rng=rng)
        self.hidden = Linear(n_hidden, gates * n_hidden, bias=False, rng=rng)


class Recurrent(Module):
    """What the recurrent layers share: x (B, T, C) -> (B, T, H), and the state after the last step.

    The outputs of a layer are its h of each step, and the inputs of the next layer.

    Parameters
    ----------
    n_in : int
        C, the length of an input vector.
    n_hidden : int
        H, the length of h.
    n_layer : int
        L, layers on top of each other.
    dropout : float
        Probability, on the outputs of all layers but the last, while training.
    rng : numpy.random.Generator or int, optional
        Fixes the initial weights and the dropout.

    Notes
    -----
    The products of W with the inputs do not depend on the state, so those of all steps of a layer are
    one matrix product; only the products of U are taken step by step.

    Initial values: W uniform in +-1/sqrt(C), U uniform in +-1/sqrt(H), b zero (see `Linear`).
    """

    gates = 1               # vectors of length H that a step computes from x and h
    parts: tuple[str, ...] = ("h",)         # what the state is made of

    def __init__(self, n_in: int, n_hidden: int, n_layer: int = 1, dropout: float = 0.0,
                 rng: Rng = None):
        for name, size in (("n_in", n_in), ("n_hidden", n_hidden), ("n_layer", n_layer)):
            if not isinstance(size, (int, np.integer)) or size < 1:
                raise ValueError(f"{type(self).__name__}: {name} must be a positive integer, got "
                                 f"{size!r}")
        rng = np.random.default_rng(rng)
        self.n_in, self.n_hidden = n_in, n_hidden
        self.layers = [self.make_layer(n_hidden if i else n_in, rng) for i in range(n_layer)]
        self.dropout = Dropout(dropout, rng)

    def make_layer(self, n_in: int, rng: np.random.Generator) -> RecurrentLayer:
        """A layer with its initial values."""
        return RecurrentLayer(n_in, self.n_hidden, self.gates, rng)

    def step(self, layer: RecurrentLayer, projected: Tensor, state: State) -> State:
        """The state (B, H) of a layer after a step, from `projected` = W x + b (B, gates H)."""
        raise NotImplementedError

    def steps(self, layer: RecurrentLayer, projected: Tensor, state: State) -> tuple[Tensor, State]:
        """h (T, B, H) after each of the steps of `projected` (T, B, gates H), and the last state.

        RNN, LSTM and GRU have one operator for all steps, which takes less than half of the time.
        """
        outputs = []
        for t in range(projected.shape[0]):
            state = self.step(layer, projected[t], state)
            outputs.append(state[0])
        return tape.stack(outputs), state

    def _at_once(self, layer: RecurrentLayer) -> bool:
        """Whether `steps` does what `step` does, and nobody waits for the products with U.

        A subclass may define another `step` alone.
        """
        owner = next(kind for kind in type(self).__mro__ if {"step", "steps"} & vars(kind).keys())
        return "steps" in vars(owner) and "step" not in vars(self) and (
            is_plain(layer.hidden, counted=True) and layer.hidden.bias is None)

    def forward(self, x: Any, state: State | None = None,
                detach: bool = False) -> tuple[Tensor, State]:
        """Run over a sequence.

        Parameters
        ----------
        x : Tensor or float array (B, T, C)
            At least one step.
        state : tuple of Tensor or array (L, B, H), optional
            Before the first step: (h,), of an LSTM (h, c). Default zeros.
        detach : bool
            Cut the tape behind the state that is returned, so that a long sequence can be trained on
            window by window: ``out, state = rnn(window, state, detach=True)``. Gradients then stop at
            the beginning of a window (truncated backpropagation through time).

        Returns
        -------
        out : Tensor (B, T, H)
            h of the last layer after each step.
        state : tuple of Tensor (L, B, H)
            Of each layer after the last step.
        """
        states = self._states(x, state)
        after = []
        for i, layer in enumerate(self.layers):
            x, last = self._unrolled(layer, self.dropout(x) if i else x, states[i])
            after.append(last)
        stacked = tuple(tape.stack(part) for part in zip(*after))            # (L, B, H) each
        return x, tuple(part.detach() for part in stacked) if detach else stacked

    def _unrolled(self, layer: RecurrentLayer, x: Any, state: State) -> tuple[Tensor, State]:
        """The outputs (B, T, H) of a layer, and its state after the last step."""
        projected = layer.input(x).swapaxes(0, 1)                # (T, B, gates H)
        out, state = (self.steps(layer, projected, state) if self._at_once(layer) else
                      Recurrent.steps(self, layer, projected, state))
        return out.swapaxes(0, 1), state

    def _states(self, x: Any, state: State | None) -> list[State]:
        """The state of each layer before the first step."""
        name, shape = type(self).__name__, np.shape(x)
        if len(shape) != 3 or shape[1] < 1 or shape[2] != self.n_in:
            raise ValueError(f"{name}: x must have shape (B, T, {self.n_in}) with T >= 1, got {shape}")
        wanted = (len(self.layers), shape[0], self.n_hidden)
        if state is None:
            nothing = np.zeros(wanted, self.layers[0].hidden.weight.dtype)
            state = (nothing,) * len(self.parts)
        found = [np.shape(part) for part in state] if isinstance(state, (tuple, list)) else type(state)
        if found != [wanted] * len(self.parts):
            raise ValueError(f"{name}: state must be ({', '.join(self.parts)},), each of shape "
                             f"(L, B, H) = {wanted}, got {found}. It is the second value that the "
                             f"call before this one returned.")
        parts = [part if isinstance(part, Tensor) else np.asarray(part) for part in state]
        return [tuple(part[i] for part in parts) for i in range(len(self.layers))]


class RNN(Recurrent):
    """The simple recurrent net.

        h' = tanh(W x + b + U h)

    Elman 1990, "Finding structure in time", Cognitive Science 14, with tanh for the logistic
    function. `Recurrent` describes the parameters, the call and the initial values.

    Notes
    -----
    dL/dh = U^T ((1 - h'^2) dL/dh'). Over many steps these factors multiply, so a gradient that is
    carried far vanishes, or explodes (Bengio et al. 1994). The gates of `LSTM` and `GRU` are there to
    give it a path on which it is multiplied by numbers near 1.
    """

    def step(self, layer: RecurrentLayer, projected: Tensor, state: State) -> State:
        (h,) = state
        return (tape.tanh(projected + layer.hidden(h)),)

    def steps(self, layer: RecurrentLayer, projected: Tensor, state: State) -> tuple[Tensor, State]:
        h = tape.rnn(projected, layer.hidden.weight, *state)     # (T, B, H)
        return h, (h[-1],)


class LSTM(Recurrent):
    """Long short-term memory with a forget gate, without peepholes.

        i, f, o = sigmoid(W_. x + b_. + U_. h)      how much to write, to keep, to show
        g = tanh(W_g x + b_g + U_g h)               what to write
        c' = f c + i g
        h' = o tanh(c')

    Hochreiter and Schmidhuber 1997, "Long short-term memory", Neural Computation 9; the forget gate f
    is that of Gers, Schmidhuber and Cummins 2000, "Learning to forget", Neural Computation 12. The
    columns of W, b and U are in the order i, f, g, o. `Recurrent` describes the parameters, the call
    and the initial values.

    Notes
    -----
    Along c the gradient is multiplied by f alone: dL/dc = f dL/dc'. The bias of f starts at 1, so that
    at the beginning of training most of it is kept (Jozefowicz, Zaremba and Sutskever 2015, "An
    empirical exploration of recurrent network architectures").
    """

    gates = 4
    parts = ("h", "c")

    def make_layer(self, n_in: int, rng: np.random.Generator) -> RecurrentLayer:
        layer = super().make_layer(n_in, rng)
        bias = np.array([0, 1, 0, 0], np.float32)                # of i, f, g, o
        layer.input.bias = Parameter(np.repeat(bias, self.n_hidden))
        return layer

    def step(self, layer: RecurrentLayer, projected: Tensor, state: State) -> State:
        h, c = state
        i, f, g, o = tape.split(projected + layer.hidden(h), 4, axis=1)      # (B, H) each
        c = tape.sigmoid(f) * c + tape.sigmoid(i) * tape.tanh(g)
        return tape.sigmoid(o) * tape.tanh(c), c

    def steps(self, layer: RecurrentLayer, projected: Tensor, state: State) -> tuple[Tensor, State]:
        h, c = tape.lstm(projected, layer.hidden.weight, *state)             # (T, B, H) each
        return h, (h[-1], c[-1])


class GRU(Recurrent):
    """The gated recurrent unit, in the variant that resets after the product with U.

        r, z = sigmoid(W_. x + b_. + U_. h)         what to reset, how much to keep
        n = tanh(W_n x + b_n + r (U_n h + a))       what to write
        h' = (1 - z) n + z h

    Cho et al. 2014, arXiv:1406.1078, eq. 5 to 8. There r multiplies h before the product, U_n (r h).
    Here, as in PyTorch, it multiplies the product, so that one product with U serves r, z and n (the
    first version of the paper, arXiv:1406.1078v1). The bias a is ``candidate_bias``, which starts at
    zero. PyTorch has second biases for r and z too; those add up with b. The columns of W, b and U
    are in the order r, z, n. `Recurrent` describes the parameters, the call and the initial values.
    """

    gates = 3

    def make_layer(self, n_in: int, rng: np.random.Generator) -> RecurrentLayer:
        layer = super().make_layer(n_in, rng)
        layer.candidate_bias = zeros(self.n_hidden)
        return layer

    def step(self, layer: RecurrentLayer, projected: Tensor, state: State) -> State:
        (h,) = state
        H = self.n_hidden
        carried = layer.hidden(h)                                # (B, 3 H)
        r, z = tape.split(tape.sigmoid(projected[:, :2 * H] + carried[:, :2 * H]), 2, axis=1)
        n = tape.tanh(projected[:, 2 * H:] + r * (carried[:, 2 * H:] + layer.candidate_bias))
        return ((1 - z) * n + z * h,)

    def steps(self, layer: RecurrentLayer, projected: Tensor, state: State) -> tuple[Tensor, State]:
        h = tape.gru(projected, layer.hidden.weight, layer.candidate_bias, *state)        # (T, B, H)
        return h, (h[-1],)
