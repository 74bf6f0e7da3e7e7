"""A training step of the default text model: eager, and frozen and run by an Evaluator, in turn.

    python -m tests.bench.bench_lazy

4 layers, 4 heads, width 128, context 64, batch 12, vocabulary 65. A step is the loss, the gradient of
every parameter and an update by plain gradient descent; both start from the same weights, and the
losses must agree to the last bit.
"""

import numpy as np

import nn
import tape.lazy as ad
from tests.bench.timing import in_turn, report

CONFIG = nn.GPTConfig(vocab_size=65, block_size=64, n_layer=4, n_head=4, n_embd=128, bias=False)
BATCHES = np.random.default_rng(0).integers(0, 65, (20, 2, 12, 64))
LR = np.float32(0.01)


def eager_step(losses):
    model = nn.GPT(CONFIG, rng=0)

    def step():
        idx, targets = BATCHES[len(losses) % len(BATCHES)]
        _, loss = model(idx, targets)
        model.zero_grad()
        loss.backward()
        for parameter in model.parameters():
            parameter.data -= LR * parameter.grad
        losses.append(loss.item())
    return step


def static_step(losses):
    model = nn.GPT(CONFIG, rng=0)
    idx, targets = BATCHES[0]
    parameters = dict(model.named_parameters())
    node, variables = ad.trace(lambda idx, targets: model(idx, targets)[1],
                               {"idx": idx, "targets": targets}, parameters=parameters)
    weights = {variables[name]: parameter.data for name, parameter in parameters.items()}
    evaluator = ad.Evaluator([node, *ad.gradients(node, list(weights))])

    def step():
        idx, targets = BATCHES[len(losses) % len(BATCHES)]
        loss, *slopes = evaluator.run({variables["idx"]: idx, variables["targets"]: targets, **weights})
        for weight, slope in zip(weights.values(), slopes):
            weight -= LR * slope
        losses.append(loss.item())
    return step


def main():
    eager, static = [], []
    seconds = in_turn({"eager": eager_step(eager), "frozen, by Evaluator": static_step(static)}, 60)
    report("GPT training step", seconds, 1e3, "ms")
    assert eager == static, "the losses differ"
    print(f"the losses of all {len(eager)} steps agree to the last bit")


if __name__ == "__main__":
    main()
