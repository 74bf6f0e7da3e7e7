"""Modules that hold modules: `ModuleList` and `Sequential`."""

from __future__ import annotations

from typing import Any, Iterable, Iterator, Mapping, Set

from nn.layers.module import Module
from tape import Tensor


class ModuleList(Module):
    """A list of modules. A plain list works as well; this one can be printed and indexed by name."""

    def __init__(self, modules: Iterable[Module] = ()):
        if isinstance(modules, (Mapping, Set)):
            raise TypeError(f"ModuleList: modules must be given in order, as in a list, got a "
                            f"{type(modules).__name__}")
        self.items: list[Module] = []
        for module in modules:
            self.append(module)

    def append(self, module: Module) -> ModuleList:
        """Add a module at the end."""
        if not isinstance(module, Module):
            raise TypeError(f"ModuleList: all items must be modules, got a {type(module).__name__}. "
                            f"A plain list in an attribute may hold anything.")
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
