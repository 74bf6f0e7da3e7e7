"""The Vision Transformer: an image is a sequence of patches.

Dosovitskiy et al. 2021, "An image is worth 16x16 words", arXiv:2010.11929.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

import tape
from nn.layers.init import Rng, zeros
from nn.layers.linear import Linear
from nn.layers.losses import cross_entropy
from nn.layers.module import Module, evaluating
from nn.layers.norm import LayerNorm
from nn.layers.patch_embedding import PatchEmbedding
from nn.layers.position import LearnedPositionalEncoding
from nn.layers.transformer import TransformerBlock
from nn.models.configuration import (
    Shapes, block_shapes, check_choice, check_sizes, linear_shapes, norm_shapes)
from tape import Tensor, no_grad

POOLS = ("class", "mean")


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
    pool : what stands for the image: the "mean" over its patches, or what becomes of a "class" token.
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
    pool: str = "mean"

    def __post_init__(self) -> None:
        check_sizes(self, "patch_size", "classes", "n_layer", "n_head", "n_embd")
        check_choice(self, "pool", POOLS)
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
        if self.pool == "class":
            yield "class_token", (self.n_embd,)
        tokens = height // side * (width // side) + (self.pool == "class")
        yield "positions.weight", (tokens, self.n_embd)
        yield from block_shapes(self.n_layer, self.n_embd)
        yield from norm_shapes("norm", self.n_embd)
        yield from linear_shapes("head", self.n_embd, self.classes)


class VisionTransformer(Module):
    """Patches + positions, a stack of pre-norm blocks, one vector for the image, logits.

    ``VisionTransformer(config)(images, labels=None) -> (logits, loss)`` with images (B, H, W),
    labels (B,), logits (B, classes). With N patches x_p, mapped to vectors by E, and L blocks

        z_0 = [x_class; x_p^1 E; ...; x_p^N E] + E_pos               eq. 1
        z'_l = attention(norm(z_(l-1))) + z_(l-1)                    eq. 2
        z_l = feed_forward(norm(z'_l)) + z'_l                        eq. 3
        y = norm(z_L^0)                                              eq. 4, with pool "class"
        y = mean over the N patches of norm(z_L)                     appendix D.3, with pool "mean"

    and the logits are y W + b. The class token x_class (C,) is a learned vector that stands in front of
    the patches of every image and gathers from them by attention; it starts at zero, so that at first
    its position alone tells it from others. With pool "mean" there is none, and E_pos is (N, C).

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
        self.class_token = zeros(c.n_embd) if c.pool == "class" else None
        tokens = self.patches.count + (c.pool == "class")
        self.positions = LearnedPositionalEncoding(tokens, c.n_embd, rng)
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
        x = self.patches(images)                                 # (B, N, C)
        if self.class_token is not None:
            front = tape.broadcast_to(self.class_token, (x.shape[0], 1, x.shape[2]))
            x = tape.concatenate([front, x], axis=1)             # (B, 1 + N, C)
        x = self.positions(x)
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)
        y = x.mean(axis=1) if self.class_token is None else x[:, 0]          # (B, C)
        logits = self.head(y)                                    # (B, classes)
        return logits, None if labels is None else cross_entropy(logits, labels)


@no_grad
def predict(model: VisionTransformer, images: np.ndarray, batch_size: int = 500) -> np.ndarray:
    """The likeliest label of each image (N, H, W): integers (N,)."""
    labels = [np.zeros(0, np.int64)]
    with evaluating(model):
        for start in range(0, len(images), batch_size):
            logits, _ = model(images[start:start + batch_size])
            labels.append(logits.data.argmax(axis=1))
    return np.concatenate(labels)
