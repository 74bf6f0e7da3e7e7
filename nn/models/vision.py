"""The Vision Transformer: an image is a sequence of patches.

Dosovitskiy et al. 2021, "An image is worth 16x16 words", arXiv:2010.11929.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

import tape
from nn.layers.init import Rng
from nn.layers.linear import Linear
from nn.layers.module import Module, evaluating
from nn.layers.norm import LayerNorm
from nn.layers.patches import PatchEmbedding
from nn.layers.position import LearnedPositionalEncoding
from nn.layers.transformer import TransformerBlock
from nn.models.configuration import Shapes, block_shapes, check_sizes, linear_shapes, norm_shapes
from tape import Tensor, no_grad


@dataclass(frozen=True)
class VisionConfig:
    """The sizes and options of a `VisionTransformer`; saved in its checkpoints.

    Attributes
    ----------
    image_shape : height and width in pixels.
    patch_size : side of a patch in pixels.
    classes : how many labels.
    n_layer, n_head, n_embd : blocks, heads in each, width.
    dropout : probability, while training.
    mean, std : of the pixels to train on; the model shifts and scales images by them.
    """

    image_shape: tuple[int, int]
    patch_size: int
    classes: int
    n_layer: int = 2
    n_head: int = 4
    n_embd: int = 64
    dropout: float = 0.0
    mean: float = 0.0
    std: float = 1.0

    def __post_init__(self) -> None:
        check_sizes(self, "patch_size", "classes", "n_layer", "n_head", "n_embd")
        if len(np.shape(self.image_shape)) != 1 or len(self.image_shape) != 2:
            raise ValueError(f"VisionConfig: image_shape must be (height, width), got "
                             f"{self.image_shape!r}")
        object.__setattr__(self, "image_shape", tuple(self.image_shape))       # a list in a file
        if not self.std > 0:
            raise ValueError(f"VisionConfig: std must be positive, got {self.std!r}")

    def parameter_shapes(self) -> Shapes:
        """(name, shape) of each parameter of the model, in the order of definition."""
        (height, width), side = self.image_shape, self.patch_size
        yield from linear_shapes("patches.linear", side * side, self.n_embd)
        yield "positions.weight", (height // side * (width // side), self.n_embd)
        yield from block_shapes(self.n_layer, self.n_embd)
        yield from norm_shapes("norm", self.n_embd)
        yield from linear_shapes("head", self.n_embd, self.classes)


class VisionTransformer(Module):
    """Patches + positions, a stack of pre-norm blocks, the mean over the patches, logits.

    ``VisionTransformer(config)(images, labels=None) -> (logits, loss)`` with images (B, H, W),
    labels (B,), logits (B, classes). Of the two heads of the paper this has the mean over the
    patches (appendix D.3), which needs no class token.

    Parameters
    ----------
    config : VisionConfig
    rng : numpy.random.Generator or int, optional
        Fixes the initial weights and the dropout.
    """

    def __init__(self, config: VisionConfig, rng: Rng = None):
        rng = np.random.default_rng(rng)
        c = self.config = config
        self.patches = PatchEmbedding(c.image_shape, c.patch_size, c.n_embd, rng)
        self.positions = LearnedPositionalEncoding(self.patches.count, c.n_embd, rng)
        self.blocks = [
            TransformerBlock(c.n_embd, c.n_head, activation="gelu", dropout=c.dropout, rng=rng)
            for _ in range(c.n_layer)]
        self.norm = LayerNorm(c.n_embd)
        self.head = Linear(c.n_embd, c.classes, rng=rng)

    def forward(self, images: Any, labels: Any = None) -> tuple[Tensor, Tensor | None]:
        if not isinstance(images, Tensor):
            images = np.asarray(images)
            images = images if images.dtype.kind == "f" else images.astype(np.float32)
        images = (images - self.config.mean) * (1 / self.config.std)
        x = self.positions(self.patches(images))                 # (B, N, C)
        for block in self.blocks:
            x = block(x)
        logits = self.head(self.norm(x).mean(axis=1))            # (B, classes)
        return logits, None if labels is None else tape.cross_entropy(logits, labels)


@no_grad
def predict(model: VisionTransformer, images: np.ndarray, batch_size: int = 500) -> np.ndarray:
    """The likeliest label of each image (N, H, W): integers (N,)."""
    labels = [np.zeros(0, np.int64)]
    with evaluating(model):
        for start in range(0, len(images), batch_size):
            logits, _ = model(images[start:start + batch_size])
            labels.append(logits.data.argmax(axis=1))
    return np.concatenate(labels)
