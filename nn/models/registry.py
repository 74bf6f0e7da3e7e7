"""The models that a checkpoint can hold, by their names in the files."""

from __future__ import annotations

from typing import NamedTuple

from nn.layers.module import Module
from nn.models.gpt import GPT, GPTConfig
from nn.models.recurrent import RecurrentConfig, RecurrentLM
from nn.models.vision import VisionConfig, VisionTransformer


class Kind(NamedTuple):
    """A kind of model.

    Attributes
    ----------
    config : a dataclass of plain values (see `nn.training.checkpoint.configuration`) with a method
        ``parameter_shapes()``.
    model : made by ``model(config, rng)``; keeps its configuration as ``config``.
    """

    config: type
    model: type


# A new model is added here. Names are never changed: files hold them.
MODELS: dict[str, Kind] = {
    "GPT": Kind(GPTConfig, GPT),
    "VisionTransformer": Kind(VisionConfig, VisionTransformer),
    "RecurrentLM": Kind(RecurrentConfig, RecurrentLM),
}

# Those that continue a text: called as `GPT` is, with vocab_size and block_size in the configuration.
LANGUAGE_MODELS = ("GPT", "RecurrentLM")


def name_of(model: Module) -> str | None:
    """The name of the kind that `model` is an instance of; None where there is none."""
    return next((name for name, kind in MODELS.items() if isinstance(model, kind.model)), None)
