"""An image as a sequence: patches, each mapped to a vector."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

import tape
from nn.layers.init import Rng
from nn.layers.linear import Linear
from nn.layers.module import Module
from tape import Tensor


def nearest_patch_size(image_shape: tuple[int, int], patch_size: int) -> int:
    """The divisor of both sides whose ratio to `patch_size` is nearest to 1; of two, the smaller."""
    both = math.gcd(*image_shape)
    divisors = [n for n in range(1, both + 1) if both % n == 0]
    return min(divisors, key=lambda n: (max(n / patch_size, patch_size / n), n))


class PatchEmbedding(Module):
    """Cut images (B, H, W) into squares and map each to a vector: (B, N, d), row by row.

    Parameters
    ----------
    image_shape : (int, int)
        H and W.
    patch_size : int
        Divides both.
    d : int
    rng : numpy.random.Generator or int, optional
    """

    def __init__(self, image_shape: tuple[int, int], patch_size: int, d: int, rng: Rng = None):
        if any(n % patch_size for n in image_shape):
            raise ValueError(f"PatchEmbedding: patch_size must divide the sides of the image, got "
                             f"{patch_size} and {image_shape}; the nearest that does is "
                             f"{nearest_patch_size(image_shape, patch_size)}")
        self.image_shape, self.patch_size = tuple(image_shape), patch_size
        self.count = image_shape[0] // patch_size * (image_shape[1] // patch_size)
        self.linear = Linear(patch_size * patch_size, d, rng=rng)

    def forward(self, images: Any) -> Tensor:
        shape = np.shape(images)
        if shape[1:] != self.image_shape:
            raise ValueError(f"PatchEmbedding: images must have shape (B, {self.image_shape[0]}, "
                             f"{self.image_shape[1]}), got {shape}")
        (H, W), P, B = self.image_shape, self.patch_size, shape[0]
        grid = tape.reshape(images, (B, H // P, P, W // P, P))
        patches = tape.swapaxes(grid, 2, 3)                      # (B, H/P, W/P, P, P)
        return self.linear(tape.reshape(patches, (B, self.count, P * P)))
