"""A character-level recurrent net, its cell written out, which learns one sentence."""

import torch
import torch.nn as nn
import torch.nn.functional as F

torch.manual_seed(42)

TEXT = "she sells sea shells by the sea shore; the shells she sells are sea shells for sure. " * 4
chars = sorted(set(TEXT))
stoi = {ch: i for i, ch in enumerate(chars)}
data = torch.tensor([stoi[ch] for ch in TEXT], dtype=torch.long)
block_size = 16
batch_size = 8


def get_batch():
    starts = torch.randint(len(data) - block_size, (batch_size,)).tolist()
    x = torch.stack([data[i:i + block_size] for i in starts])
    y = torch.stack([data[i + 1:i + block_size + 1] for i in starts])
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
            h = torch.zeros(B, self.hidden_size)
        x = self.embed(idx)                             # (B, T, n_embd)
        outs = []
        for t in range(T):
            h = torch.tanh(self.i2h(x[:, t]) + self.h2h(h))
            outs.append(h.unsqueeze(1))
        return self.h2o(torch.cat(outs, dim=1)), h      # (B, T, vocab_size)

    @torch.no_grad()
    def sample(self, start, n):
        idx = torch.tensor([[stoi[start]]])
        h, text = None, start
        for _ in range(n):
            logits, h = self(idx, h)
            idx = logits[:, -1].argmax(dim=-1, keepdim=True)
            text += chars[idx.item()]
        return text


def make_model():
    return CharRNN(len(chars))


def train(model, max_iters=150):
    """The losses of all steps."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    history = []
    for it in range(max_iters):
        x, y = get_batch()
        logits, _ = model(x)
        loss = F.cross_entropy(logits.permute(0, 2, 1), y)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), max_norm=1.0)
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
