"""Transformers on the tape: layers, models, optimisers, text, checkpoints.

Built from tape's public names only.
"""

from nn.layers.activation import GELU, ReLU
from nn.layers.attention import MultiHeadAttention, causal_mask, padding_mask
from nn.training.checkpoint.load import (
    Checkpoint, CheckpointError, load_checkpoint, newest_checkpoint, save_checkpoint)
from nn.layers.dropout import Dropout
from nn.models.gpt import GPT, GPTConfig
from nn.layers.linear import Embedding, Linear
from nn.layers.module import Module, ModuleList, Parameter, Sequential, evaluating
from nn.layers.norm import LayerNorm
from nn.training.optim import SGD, AdamW, clip_grad_norm, decay_groups
from nn.layers.position import LearnedPositionalEncoding, SinusoidalPositionalEncoding
from nn.generation.sampling import generate, sample
from nn.training.schedule import warmup_cosine
from nn.data.tokenizers import CharTokenizer, Tokenizer, WordTokenizer
from nn.layers.transformer import FeedForward, TransformerBlock
from nn.models.vision import PatchEmbedding, VisionConfig, VisionTransformer, predict
from tape import cross_entropy

__all__ = [
    "AdamW", "CharTokenizer", "Checkpoint", "CheckpointError", "Dropout", "Embedding",
    "FeedForward", "GELU", "GPT", "GPTConfig", "LayerNorm", "LearnedPositionalEncoding", "Linear",
    "Module", "ModuleList", "MultiHeadAttention", "Parameter", "PatchEmbedding", "ReLU", "SGD",
    "Sequential", "SinusoidalPositionalEncoding", "Tokenizer", "TransformerBlock", "VisionConfig",
    "VisionTransformer", "WordTokenizer", "causal_mask", "clip_grad_norm", "cross_entropy",
    "decay_groups", "evaluating", "generate", "load_checkpoint", "newest_checkpoint",
    "padding_mask", "predict", "sample", "save_checkpoint", "warmup_cosine",
]
