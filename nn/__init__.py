"""Transformers on the tape: layers, models, optimisers, text, checkpoints.

Built from tape's public names only.
"""

from nn.activation import GELU, ReLU
from nn.attention import MultiHeadAttention, causal_mask, padding_mask
from nn.checkpoint import (
    Checkpoint, CheckpointError, load_checkpoint, newest_checkpoint, save_checkpoint)
from nn.dropout import Dropout
from nn.gpt import GPT, GPTConfig
from nn.linear import Embedding, Linear
from nn.module import Module, ModuleList, Parameter, Sequential, evaluating
from nn.norm import LayerNorm
from nn.optim import SGD, AdamW, clip_grad_norm, decay_groups
from nn.position import LearnedPositionalEncoding, SinusoidalPositionalEncoding
from nn.sampling import generate, sample
from nn.schedule import warmup_cosine
from nn.text import CharTokenizer, Tokenizer, WordTokenizer
from nn.transformer import FeedForward, TransformerBlock
from nn.vision import PatchEmbedding, VisionConfig, VisionTransformer, predict
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
