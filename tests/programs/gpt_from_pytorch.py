"""A character-level GPT: model, data, training, sampling, all in one file."""

import math
from dataclasses import dataclass

import numpy as np
import nn
import tape

# ---------------------------------------------------------------- settings

batch_size = 8
max_iters = 60
eval_interval = 20
eval_iters = 4
learning_rate = 3e-3
min_lr = 3e-4
warmup_iters = 5
weight_decay = 0.1
betas = (0.9, 0.99)
grad_clip = 1.0

rng = np.random.default_rng(1337)

# ---------------------------------------------------------------- the data

TEXT = """
the quick brown fox jumps over the lazy dog
the lazy dog sleeps under the old brown tree
a quick grey cat jumps over the sleeping dog
an old fox and a grey cat sleep under the tree
""" * 12

chars = sorted(set(TEXT))
vocab_size = len(chars)
stoi = {ch: i for i, ch in enumerate(chars)}
itos = {i: ch for i, ch in enumerate(chars)}


def encode(text):
    return [stoi[ch] for ch in text]


def decode(ids):
    return "".join(itos[int(i)] for i in ids)


data = np.array(encode(TEXT))
n_train = int(0.9 * len(data))
splits = {"train": data[:n_train], "val": data[n_train:]}


def get_batch(split, block_size):
    """Inputs and targets, both (batch_size, block_size); a target is the character that follows."""
    source = splits[split]
    ix = rng.integers(len(source) - block_size, size=(batch_size, 1)) + np.arange(block_size)
    return source[ix], source[ix + 1]


# ---------------------------------------------------------------- the model


@dataclass
class GPTConfig:
    block_size: int = 16
    vocab_size: int = vocab_size
    n_layer: int = 2
    n_head: int = 2
    n_embd: int = 32
    dropout: float = 0.0
    bias: bool = True


class CausalSelfAttention(nn.Module):
    """Several heads of attention, each position to those before it and to itself."""

    def __init__(self, config):
        super().__init__()
        assert config.n_embd % config.n_head == 0
        # queries, keys and values of all heads in one product
        self.c_attn = nn.Linear(config.n_embd, 3 * config.n_embd, bias=config.bias)
        self.c_proj = nn.Linear(config.n_embd, config.n_embd, bias=config.bias)
        self.c_proj.is_residual = True
        self.attn_dropout = nn.Dropout(config.dropout)
        self.resid_dropout = nn.Dropout(config.dropout)
        self.n_head = config.n_head
        self.n_embd = config.n_embd
        self.head_size = config.n_embd // config.n_head
        size = config.block_size
        self.register_buffer("mask", np.tril(np.ones((size, size))).reshape(1, 1, size, size))

    def forward(self, x):
        B, T, C = x.shape
        q, k, v = self.c_attn(x).split(3, axis=2)
        # (B, T, C) -> (B, n_head, T, head_size)
        q, k, v = (t.reshape(B, T, self.n_head, self.head_size).swapaxes(1, 2) for t in (q, k, v))
        # (B, n_head, T, head_size) @ (B, n_head, head_size, T) -> (B, n_head, T, T)
        att = (q @ k.swapaxes(-2, -1)) * (1.0 / math.sqrt(self.head_size))
        att = tape.where(self.mask[:, :, :T, :T] == 0, float("-inf"), att)
        att = att.softmax(-1)
        att = self.attn_dropout(att)
        y = att @ v
        # the heads side by side again
        y = y.swapaxes(1, 2).reshape(B, T, C)
        return self.resid_dropout(self.c_proj(y))


class MLP(nn.Module):
    """Two linear layers, four times as wide between them."""

    def __init__(self, config):
        super().__init__()
        self.c_fc = nn.Linear(config.n_embd, 4 * config.n_embd, bias=config.bias)
        self.gelu = nn.GELU(approximate="tanh")
        self.c_proj = nn.Linear(4 * config.n_embd, config.n_embd, bias=config.bias)
        self.c_proj.is_residual = True
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x):
        x = self.c_fc(x)
        x = self.gelu(x)
        x = self.c_proj(x)
        x = self.dropout(x)
        return x


class Block(nn.Module):
    """Attention and MLP, each added to what comes in, which is normalised first."""

    def __init__(self, config):
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.n_embd)
        self.attn = CausalSelfAttention(config)
        self.ln_2 = nn.LayerNorm(config.n_embd)
        self.mlp = MLP(config)

    def forward(self, x):
        x = x + self.attn(self.ln_1(x))
        x = x + self.mlp(self.ln_2(x))
        return x


class GPT(nn.Module):
    """Tokens and positions, blocks, logits; the output weights are those of the token embedding."""

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.transformer = nn.ModuleDict(dict(
            wte=nn.Embedding(config.vocab_size, config.n_embd),
            wpe=nn.Embedding(config.block_size, config.n_embd),
            drop=nn.Dropout(config.dropout),
            h=nn.ModuleList([Block(config) for _ in range(config.n_layer)]),
            ln_f=nn.LayerNorm(config.n_embd),
        ))
        self.lm_head = lambda x: x @ self.transformer.wte.weight.T
        self.apply(self._init_weights)

    def _init_weights(self, module):
        std = 0.02
        if hasattr(module, "is_residual"):
            # the sum over all layers should not grow with their number
            std /= math.sqrt(2 * self.config.n_layer)
        if isinstance(module, (nn.Linear, nn.Embedding)):
            module.weight.data = rng.normal(0.0, std, module.weight.shape)
        if isinstance(module, nn.Linear) and module.bias is not None:
            module.bias.data[...] = 0

    def num_params(self):
        return sum(p.size for p in self.parameters())

    def forward(self, idx, targets=None):
        B, T = idx.shape
        assert T <= self.config.block_size, f"a sequence of {T} is longer than the block"
        pos = np.arange(T)
        tok_emb = self.transformer.wte(idx)       # (B, T, n_embd)
        pos_emb = self.transformer.wpe(pos)       # (T, n_embd)
        x = self.transformer.drop(tok_emb + pos_emb)
        for block in self.transformer.h:
            x = block(x)
        x = self.transformer.ln_f(x)
        logits = self.lm_head(x)                  # (B, T, vocab_size)
        if targets is None:
            return logits, None
        loss = nn.cross_entropy(logits, targets, ignore_index=-1)
        return logits, loss

    def configure_optimizers(self, weight_decay, learning_rate, betas):
        """AdamW, with decay for matrices and tables, and none for biases and norms."""
        params = [p for p in self.parameters() if p.requires_grad]
        decay = [p for p in params if p.ndim >= 2]
        no_decay = [p for p in params if p.ndim < 2]
        groups = [
            {"params": decay, "weight_decay": weight_decay},
            {"params": no_decay, "weight_decay": 0.0},
        ]
        print(f"{len(decay)} parameters decay, {len(no_decay)} do not")
        return nn.AdamW(groups, lr=learning_rate, betas=betas)

    @tape.no_grad()
    def generate(self, idx, max_new_tokens, temperature=1.0, top_k=None):
        """Continue the sequences idx (B, T) by so many tokens."""
        for _ in range(max_new_tokens):
            idx_cond = idx[:, -self.config.block_size:]
            logits, _ = self(idx_cond)
            logits = logits[:, -1, :] / temperature
            if top_k is not None:
                v = np.sort(logits.data)[:, -min(top_k, logits.shape[-1]):]
                logits = tape.where(logits < v[:, [0]], -float("inf"), logits)
            probs = logits.softmax(-1)
            idx_next = np.argmax(np.cumsum(probs.data, 1) > rng.random((len(idx), 1)), 1)[:, None]
            idx = np.concatenate((idx, idx_next), axis=1)
        return idx


# ---------------------------------------------------------------- the training


def get_lr(it):
    """A linear rise, then half a cosine down to min_lr."""
    if it < warmup_iters:
        return learning_rate * (it + 1) / warmup_iters
    ratio = (it - warmup_iters) / (max_iters - warmup_iters)
    coeff = 0.5 * (1.0 + math.cos(math.pi * min(ratio, 1.0)))
    return min_lr + coeff * (learning_rate - min_lr)


@tape.no_grad()
def estimate_loss(model):
    out = {}
    model.eval()
    for split in ("train", "val"):
        losses = []
        for _ in range(eval_iters):
            xb, yb = get_batch(split, model.config.block_size)
            _, loss = model(xb, yb)
            losses.append(loss.item())
        out[split] = sum(losses) / len(losses)
    model.train()
    return out


def train(model, max_iters=max_iters):
    """The losses of all steps."""
    optimizer = model.configure_optimizers(weight_decay, learning_rate, betas)
    history = []
    for it in range(max_iters):
        lr = get_lr(it)
        optimizer.lr = lr
        if it % eval_interval == 0:
            losses = estimate_loss(model)
            print(f"step {it}: train loss {losses['train']:.4f}, val loss {losses['val']:.4f}")
        xb, yb = get_batch("train", model.config.block_size)
        _, loss = model(xb, yb)
        optimizer.zero_grad()
        loss.backward()
        nn.clip_grad_norm(model.parameters(), grad_clip)
        optimizer.step()
        history.append(loss.item())
    return history


def make_model():
    return GPT(GPTConfig())


def main(max_iters=max_iters):
    model = make_model()
    print(f"{model.num_params():,} parameters")
    history = train(model, max_iters)
    print(f"first loss {history[0]:.3f}, last loss {history[-1]:.3f}")
    model.eval()
    print(decode(model.generate(data[None, :4], 60, temperature=0.8, top_k=5)[0]))
    return history


if __name__ == "__main__":
    main()
