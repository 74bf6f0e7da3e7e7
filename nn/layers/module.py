"""`Module`, the base of all layers and models."""

from __future__ import annotations

from contextlib import contextmanager
from typing import Any, Callable, Iterator, Mapping, Sequence

import numpy as np

from nn.layers.foreign_names import MODULE, in_our_words, missing, refuse_arguments_of
from nn.layers.parameter import is_learned
from nn.layers.state_dict import load_arrays
from nn.layers.traversal import Path, Searched, name_of, place_of, walk
from tape import Tensor


class Module(Searched):
    """Base of all layers and models: assign parameters and modules in ``__init__``, write ``forward``.

    Whatever is assigned to an attribute is found, in the order of definition: parameters, modules,
    and the items of sequences (list, tuple, deque, ...), mappings, views of mappings, arrays of
    objects and dataclasses, to any depth. Nothing needs to be registered. A parameter that is
    reached twice (tied weights) counts once, under its first name.

    An error is raised for parameters and modules in a set or as the keys of a mapping, which have
    no stable name, for those in the body of a class, which all instances would share, and for two
    parameters of one name. Objects of other classes, generators and closures are not searched:
    derive the class from Module, or keep what it uses in an attribute as well.

    Examples
    --------
    >>> import nn
    >>> from tape import Tensor
    >>> class Double(nn.Module):
    ...     def __init__(self):
    ...         self.weight = nn.Parameter([2.0])
    ...     def forward(self, x):
    ...         return x * self.weight
    >>> model = Double()
    >>> [name for name, _ in model.named_parameters()], model(Tensor([3.0])).item()
    (['weight'], 6.0)
    """

    training: bool = True

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        if vars(cls).get("__slots__"):
            raise TypeError(f"{cls.__name__}: what is in __slots__ would not be found among the "
                            f"attributes of a module. Leave __slots__ out.")
        for path, value in walk(vars(cls)):
            if isinstance(value, Tensor):
                raise TypeError(f"{cls.__name__}.{name_of(path)}: a parameter in the body of a class "
                                f"would be shared by all instances and not be found. Assign it in "
                                f"__init__.")

    def __new__(cls, *args: Any, **kwargs: Any) -> Module:
        refuse_arguments_of(cls, args, kwargs)
        return super().__new__(cls)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the module computes; call the module itself."""
        raise NotImplementedError(f"{type(self).__name__} has no forward")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.forward(*args, **kwargs)

    # --- parameters ---

    def named_parameters(self) -> Iterator[tuple[str, Tensor]]:
        """(name, parameter) in the order of definition; names are paths like ``blocks.0.weight``."""
        paths: dict[str, Path] = {}
        for path, value in walk(self):
            if not isinstance(value, Tensor):
                continue
            name = name_of(path)
            if name in paths:
                raise ValueError(
                    f"{type(self).__name__}: each parameter needs a name of its own, but two "
                    f"parameters are named {name!r}: {place_of(paths[name])} and {place_of(path)}. "
                    f"Rename one of them.")
            paths[name] = path
            yield name, value

    def parameters(self) -> list[Tensor]:
        """The parameters, each once, in the order of definition."""
        return [parameter for _, parameter in self.named_parameters()]

    def named_modules(self) -> Iterator[tuple[str, Module]]:
        """(name, module) of this module, whose name is empty, and of all inside it, each once."""
        yield "", self
        for path, value in walk(self):
            if isinstance(value, Module):
                yield name_of(path), value

    def modules(self) -> Iterator[Module]:
        """This module and all inside it, each once."""
        return (module for _, module in self.named_modules())

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """(name, module) of those inside this module, but not of those inside them."""
        inside = ""
        for name, module in self.named_modules():
            if name and not (inside and name.startswith(inside + ".")):
                inside = name
                yield name, module

    def children(self) -> Iterator[Module]:
        """The modules inside this one, but not those inside them."""
        return (module for _, module in self.named_children())

    def apply(self, function: Callable[[Module], Any]) -> Module:
        """Call a function with every module inside this one, and then with this one; returns it.

        In the order of definition, but what holds others comes after them.
        """
        holding: list[tuple[str, Module]] = []          # those whose insides are not done yet
        for name, module in list(self.named_modules()):
            while holding and holding[-1][0] and not name.startswith(holding[-1][0] + "."):
                function(holding.pop()[1])
            holding.append((name, module))
        for _, module in reversed(holding):
            function(module)
        return self

    def parameter_count(self) -> int:
        """The number of elements of all parameters; tied ones count once."""
        return sum(parameter.size for parameter in self.parameters())

    # --- buffers ---

    def register_buffer(self, name: str, array: Any, saved: bool = True) -> None:
        """Keep an array that is never trained: a table, or a mean that is updated in the forward.

        It becomes a Tensor without gradient at ``self.name``; ``self.name.data = array`` changes it.

        Parameters
        ----------
        name : str
            Of an attribute that does not exist yet.
        array : array
        saved : bool
            Whether it is part of ``state_dict()``. What can be made again need not be. A model for
            checkpoints lists the saved ones in its configuration's ``parameter_shapes`` too.
        """
        if not name.isidentifier() or hasattr(self, name):
            raise ValueError(f"{type(self).__name__}.register_buffer: name must be that of a new "
                             f"attribute, got {name!r}")
        setattr(self, name, Tensor(array))
        self._buffers = {**vars(self).get("_buffers", {}), name: bool(saved)}

    def named_buffers(self, saved: bool | None = None) -> Iterator[tuple[str, Tensor]]:
        """(name, Tensor) of each buffer, or only of those that are `saved`, or are not."""
        for path, module in [(None, self), *walk(self)]:
            for key, is_saved in vars(module).get("_buffers", {}).items() if isinstance(
                    module, Module) else ():
                if saved in (None, is_saved):
                    yield name_of((path, key, ".")), module._buffer(key)

    def buffers(self) -> list[Tensor]:
        """The buffers, in the order of definition."""
        return [buffer for _, buffer in self.named_buffers()]

    def _buffer(self, key: str) -> Tensor:
        value = getattr(self, key)
        if not isinstance(value, Tensor) or is_learned(value):
            raise TypeError(f"{type(self).__name__}.{key}: a buffer must stay a Tensor without "
                            f"gradient, got a {type(value).__name__}. Change its array: "
                            f"module.{key}.data = array.")
        return value

    @in_our_words
    def zero_grad(self) -> None:
        """Set the gradients of all parameters to None."""
        for parameter in self.parameters():
            parameter.grad = None

    # --- modes ---

    def train(self, mode: bool = True) -> Module:
        """Set training mode (or evaluation mode), which dropout depends on, in all modules inside."""
        if not isinstance(mode, (bool, np.bool_)):
            raise TypeError(f"train: mode must be True or False, got {mode!r}. train() sets the "
                            f"mode only, as eval() does; the loop of training is yours to write.")
        for module in self.modules():
            module.training = bool(mode)
        return self

    def eval(self) -> Module:
        """``train(False)``."""
        return self.train(False)

    # --- state ---

    def state_dict(self) -> dict[str, np.ndarray]:
        """A copy of the array of every parameter, and then of every saved buffer, by name."""
        return {name: tensor.data.copy() for name, tensor in self._state().items()}

    def _state(self) -> dict[str, Tensor]:
        return {**dict(self.named_parameters()), **dict(self.named_buffers(saved=True))}

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True) -> list[str]:
        """Copy arrays into parameters and buffers of the same names: all or, with an error, none.

        Parameters
        ----------
        state : mapping from names to arrays
            Numbers of another type are converted, rounded where need be; NaN and infinities are
            loaded as they are. Complex numbers, texts and objects are refused, and so are values
            beyond the range of the parameter, and for a buffer of integers others than integers.
        strict : bool
            Raise where names are missing or left over. Without it they are skipped and returned.
            A wrong shape or type is an error either way.

        Returns
        -------
        list of str
            What did not match, in words, a text for each name; empty when all did. The first few
            say which name that is left over on the other side is nearest.
        """
        caller = f"load_state_dict: {type(self).__name__}"
        if not isinstance(state, Mapping):
            raise TypeError(f"{caller}: state must be a mapping from names to arrays, as from "
                            f"state_dict(), got {type(state).__name__}")
        return load_arrays(self._state(), state, strict, caller)

    def __getattr__(self, name: str) -> Any:
        if name in MODULE:
            raise missing(f"a {type(self).__name__}", name, MODULE)
        return object.__getattribute__(self, name)      # Python's own error

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.parameter_count():,} parameters)"


@contextmanager
def evaluating(model: Module, modules: Sequence[Module] | None = None) -> Iterator[None]:
    """Evaluation mode for the length of a block; afterwards each module is in the mode it was in.

    To look for the modules takes as long as some ten operations. Who enters often gives them, as
    ``list(model.modules())``.
    """
    before = [(module, module.training) for module in (modules or model.modules())]
    for module, _ in before:
        module.training = False
    try:
        yield
    finally:
        for module, training in before:
            module.training = training
