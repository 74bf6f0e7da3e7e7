"""Transformers on the tape: layers, models, optimisers, text, checkpoints.

Built from tape's public names only.
"""

from nn.data.tokenizers import BPETokenizer, CharTokenizer, Tokenizer, WordTokenizer
from nn.generation.beams import Beam, beam_search
from nn.generation.sampling import sample
from nn.generation.text import generate_text, stream_text
from nn.generation.translation import translate
from nn.generation.writing import generate, generate_batch
from nn.layers.activation import GELU, ReLU, SiLU
from nn.layers.attention import MultiHeadAttention, causal_mask, padding_mask
from nn.layers.cache import KeyValueCache
from nn.layers.containers import ModuleDict, ModuleList, Sequential
from nn.layers.dropout import Dropout
from nn.layers.feed_forward import FeedForward, SwiGLU
from nn.layers.foreign_names import NN as _FOREIGN_NAMES
from nn.layers.foreign_names import missing as _missing
from nn.layers.linear import Embedding, Linear
from nn.layers.losses import binary_cross_entropy_with_logits, cross_entropy, mse
from nn.layers.module import Module, evaluating
from nn.layers.norm import LayerNorm, RMSNorm
from nn.layers.parameter import Parameter, parameters_of, without_memory
from nn.layers.patch_embedding import PatchEmbedding
from nn.layers.position import (
    ALiBi, LearnedPositionalEncoding, RotaryEmbedding, SinusoidalPositionalEncoding)
from nn.layers.recurrent import GRU, LSTM, RNN
from nn.layers.summary import Summary, summary
from nn.layers.transformer import (
    TransformerBlock, TransformerDecoderBlock, TransformerEncoder, TransformerEncoderBlock,
    checkpoint_blocks)
from nn.models.gpt import GPT, GPTConfig
from nn.models.recurrent import RecurrentConfig, RecurrentLM
from nn.models.scalar_gpt import ScalarGPT
from nn.models.seq2seq import Seq2SeqConfig, Seq2SeqTransformer
from nn.models.vision import VisionConfig, VisionTransformer, predict
from nn.training.audit import Audit, audit
from nn.training.average import ExponentialMovingAverage
from nn.training.checkpoint import (
    Checkpoint, CheckpointError, load_checkpoint, newest_checkpoint, save_checkpoint)
from nn.training.clip_grad import clip_grad_norm
from nn.training.optim import SGD, Adam, AdamW, decay_groups
from nn.training.parallel import DataParallel
from nn.training.schedule import warmup_constant, warmup_cosine, warmup_linear

__all__ = [
    "ALiBi", "Adam", "AdamW", "Audit", "BPETokenizer", "Beam", "CharTokenizer", "Checkpoint",
    "CheckpointError", "DataParallel", "Dropout",
    "Embedding", "ExponentialMovingAverage", "FeedForward", "GELU", "GPT", "GPTConfig", "GRU",
    "KeyValueCache", "LSTM", "LayerNorm", "LearnedPositionalEncoding", "Linear", "Module",
    "ModuleDict", "ModuleList", "MultiHeadAttention", "Parameter", "PatchEmbedding", "RMSNorm",
    "RNN", "ReLU", "RecurrentConfig", "RecurrentLM", "RotaryEmbedding", "SGD", "ScalarGPT",
    "Seq2SeqConfig", "Seq2SeqTransformer", "Sequential", "SiLU", "SinusoidalPositionalEncoding",
    "Summary", "SwiGLU", "Tokenizer", "TransformerBlock", "TransformerDecoderBlock",
    "TransformerEncoder", "TransformerEncoderBlock", "VisionConfig", "VisionTransformer",
    "WordTokenizer", "audit", "beam_search",
    "binary_cross_entropy_with_logits", "causal_mask", "checkpoint_blocks", "clip_grad_norm",
    "cross_entropy", "decay_groups", "evaluating", "generate", "generate_batch", "generate_text",
    "load_checkpoint", "mse",
    "newest_checkpoint", "padding_mask", "parameters_of",
    "predict", "sample", "save_checkpoint", "stream_text",
    "summary",
    "translate", "warmup_constant", "warmup_cosine", "warmup_linear", "without_memory",
]


def __getattr__(name: str):
    """A name of PyTorch's is answered with ours, another unknown one with the nearest."""
    raise _missing("nn", name, _FOREIGN_NAMES, __all__)
