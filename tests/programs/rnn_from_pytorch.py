"""A character-level recurrent net, its cell written out, which learns one sentence."""

import numpy as np
import nn
import tape

rng = np.random.default_rng(42)

TEXT = "she sells sea shells by the sea shore; the shells she sells are sea shells for sure. " * 4
chars = sorted(set(TEXT))
stoi = {ch: i for i, ch in enumerate(chars)}
data = np.array([stoi[ch] for ch in TEXT])
block_size = 16
batch_size = 8


def get_batch():
    starts = rng.integers(len(data) - block_size, size=batch_size).tolist()
    x = tape.stack([data[i:i + block_size] for i in starts])
    y = tape.stack([data[i + 1:i + block_size + 1] for i in starts])
    return x, y


class CharRNN(nn.Module):
    def __init__(self, vocab_size, n_embd=16, hidden_size=48):
        super().__init__()
        self.hidden_size = hidden_size
        self.embed = nn.Embedding(vocab_size, n_embd)
        self.i2h = nn.Linear(n_embd, hidden_size)
        self.h2h = nn.Linear(hidden_size, hidden_size, bias=False)
        self.h2o = nn.Linear(hidden_size, vocab_size)

    def forward(self, idx, h=None):
        B, T = idx.shape
        if h is None:
            h = np.zeros((B, self.hidden_size), np.float32)
        x = self.embed(idx)                             # (B, T, n_embd)
        outs = []
        for t in range(T):
            h = tape.tanh(self.i2h(x[:, t]) + self.h2h(h))
            outs.append(h.expand_dims(1))
        return self.h2o(tape.concatenate(outs, axis=1)), h      # (B, T, vocab_size)

    @tape.no_grad()
    def sample(self, start, n):
        idx = np.array([[stoi[start]]])
        h, text = None, start
        for _ in range(n):
            logits, h = self(idx, h)
            idx = logits[:, -1].argmax(axis=-1, keepdims=True)
            text += chars[idx.item()]
        return text


def make_model():
    return CharRNN(len(chars))


def train(model, max_iters=150):
    """The losses of all steps."""
    optimizer = nn.Adam(model.parameters(), lr=1e-2)
    history = []
    for it in range(max_iters):
        x, y = get_batch()
        logits, _ = model(x)
        loss = nn.cross_entropy(logits, y)
        optimizer.zero_grad()
        loss.backward()
        nn.clip_grad_norm(model.parameters(), max_norm=1.0)
        optimizer.step()
        history.append(loss.item())
    return history


def main(max_iters=150):
    model = make_model()
    history = train(model, max_iters)
    print(f"last loss {history[-1]:.3f}: {model.sample('s', 30)}")
    return history


if __name__ == "__main__":
    main()
