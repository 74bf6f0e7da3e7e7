"""`Module`: something with parameters. Also the containers `ModuleList` and `Sequential`."""

from __future__ import annotations

import difflib
from contextlib import contextmanager
from typing import Any, Iterator

import numpy as np

from tape import Tensor


class Parameter(Tensor):
    """A Tensor that an optimiser changes; with ``requires_grad = False`` it is saved but frozen."""

    __slots__ = ()

    def __init__(self, data: Any, dtype: Any = None):
        super().__init__(data, requires_grad=True, dtype=dtype)


class Module:
    """Base of all layers and models: assign parameters and modules in ``__init__``, write ``forward``.

    Whatever is assigned to an attribute is found again, in the order of definition: parameters,
    modules, and lists, tuples and dicts of them. Nothing need be registered. A parameter that is
    reached twice (tied weights) counts once, under its first name.

    Examples
    --------
    >>> class Double(Module):
    ...     def __init__(self):
    ...         self.weight = Parameter([2.0])
    ...     def forward(self, x):
    ...         return x * self.weight
    >>> model = Double()
    >>> [name for name, _ in model.named_parameters()], model(Tensor([3.0])).item()
    (['weight'], 6.0)
    """

    training: bool = True

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the module computes; call the module itself."""
        raise NotImplementedError(f"{type(self).__name__} has no forward")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.forward(*args, **kwargs)

    # --- parameters ---

    def named_parameters(self) -> Iterator[tuple[str, Tensor]]:
        """(name, parameter) in the order of definition; names are paths like ``blocks.0.weight``."""
        for name, value in self._walk():
            if isinstance(value, Tensor):
                yield name, value

    def parameters(self) -> list[Tensor]:
        """The parameters, each once, in the order of definition."""
        return [parameter for _, parameter in self.named_parameters()]

    def modules(self) -> Iterator[Module]:
        """This module and all inside it, each once."""
        yield self
        for _, value in self._walk():
            if isinstance(value, Module):
                yield value

    def _walk(self) -> Iterator[tuple[str, Any]]:
        """Every parameter and module below this one, with its path, once and in order."""
        seen = {id(self)}
        stack = [iter(_children("", vars(self)))]
        while stack:
            for path, value in stack[-1]:
                if isinstance(value, (Module, Tensor)):
                    if id(value) in seen or (isinstance(value, Tensor) and not _is_learned(value)):
                        continue
                    seen.add(id(value))
                    yield path, value
                if isinstance(value, Module):
                    stack.append(iter(_children(path + ".", vars(value))))
                    break
                if isinstance(value, (list, tuple)):
                    stack.append(iter(_children(path + ".", dict(enumerate(value)))))
                    break
                if isinstance(value, dict):
                    stack.append(iter(_children(path + ".", value)))
                    break
            else:
                stack.pop()

    def parameter_count(self) -> int:
        """How many numbers the model learns; tied ones count once."""
        return sum(parameter.size for parameter in self.parameters())

    def zero_grad(self) -> None:
        """Forget the gradients of all parameters."""
        for parameter in self.parameters():
            parameter.grad = None

    # --- modes ---

    def train(self, mode: bool = True) -> Module:
        """Switch dropout and the like on (or off) in this module and all inside it."""
        for module in self.modules():
            module.training = mode
        return self

    def eval(self) -> Module:
        """``train(False)``."""
        return self.train(False)

    # --- state ---

    def state_dict(self) -> dict[str, np.ndarray]:
        """A copy of every parameter's array, by name."""
        return {name: parameter.data.copy() for name, parameter in self.named_parameters()}

    def load_state_dict(self, state: dict[str, np.ndarray], strict: bool = True) -> list[str]:
        """Copy arrays into the parameters of the same names.

        Parameters
        ----------
        state : dict of arrays
        strict : bool
            Raise where names are missing or left over. Without it they are skipped and returned.
            A wrong shape is an error either way.

        Returns
        -------
        list of str
            What did not match, in words; empty when all did.
        """
        own = dict(self.named_parameters())
        report = [f"missing {name!r}{_near(name, state)}" for name in own if name not in state]
        report += [f"unexpected {name!r}{_near(name, own)}" for name in state if name not in own]
        shapes = [f"{name!r} must have shape {own[name].shape}, got {np.shape(state[name])}"
                  for name in own if name in state and own[name].shape != np.shape(state[name])]
        if shapes or (strict and report):
            raise ValueError(f"load_state_dict: {type(self).__name__}: " +
                             "; ".join(shapes + report))
        for name, parameter in own.items():
            if name in state:
                parameter.data = np.array(state[name], dtype=parameter.dtype)
        return report

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.parameter_count():,} parameters)"


def _is_learned(tensor: Tensor) -> bool:
    """A Parameter, frozen or not, or a leaf that wants a gradient; not a result kept for a look."""
    return isinstance(tensor, Parameter) or (tensor.requires_grad and tensor.is_leaf)


def _children(prefix: str, attributes: dict) -> list[tuple[str, Any]]:
    return [(f"{prefix}{name}", value) for name, value in attributes.items()]


def _near(name: str, names: Any) -> str:
    near = difflib.get_close_matches(name, list(names), 1)
    return f" (nearest: {near[0]!r})" if near else ""


@contextmanager
def evaluating(model: Module) -> Iterator[None]:
    """Evaluation mode for the length of a block; afterwards each module is in the mode it was in."""
    before = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in before:
            module.training = training


class ModuleList(Module):
    """A list of modules. A plain list works as well; this one can be printed and indexed by name."""

    def __init__(self, modules: Any = ()):
        self.items = list(modules)

    def append(self, module: Module) -> ModuleList:
        """Add a module at the end."""
        self.items.append(module)
        return self

    def __getitem__(self, index: int) -> Module:
        return self.items[index]

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Module]:
        return iter(self.items)


class Sequential(Module):
    """Modules (or any functions of one tensor) that run one after the other."""

    def __init__(self, *layers: Any):
        self.layers = list(layers)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x
