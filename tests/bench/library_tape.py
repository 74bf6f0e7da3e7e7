"""This project, as a program uses it that imports `nn` and makes no settings."""

import nn
import tape
from tests.bench import sizes as at
from tests.bench.bench_fused import KERNELS, both_ways

tanh, look_up, relu, softmax, norm, maximum, where = (
    tape.tanh, tape.embedding, tape.relu, tape.softmax, tape.layer_norm, tape.maximum, tape.where)


def model_of(sizes):
    return nn.GPT(nn.GPTConfig(sizes.vocabulary, sizes.block, sizes.layers, sizes.heads, sizes.width,
                               bias=False), rng=0)


def training_step(sizes, wrap=lambda model: model):
    model, (idx, targets) = model_of(sizes), at.batch(sizes)
    model.load_state_dict(at.weights(sizes))
    parameters = dict(model.named_parameters())
    run = wrap(model)
    optimizer = nn.AdamW(nn.decay_groups(model, at.DECAY), lr=at.LR, betas=at.BETAS, eps=at.EPS)

    def step():
        _, loss = run(idx, targets)
        optimizer.zero_grad()
        loss.backward()
        nn.clip_grad_norm(parameters, at.CLIP)
        optimizer.step()
        return loss.item()

    return step


def writing(sizes, tokens):
    """A call that writes so many tokens after one."""
    model = model_of(sizes)
    return lambda: list(nn.generate(model, [0], tokens, rng=0))


def differentiating(f, arrays, *gradient):
    """A call that finds f and its gradients."""
    return at.differentiating(f, [tape.Tensor(array, requires_grad=True) for array in arrays],
                              *gradient)


def kernels(composed=False):
    """name -> a call that runs a fused operator, or its definition, forward and backward."""
    return {name: lambda name=name: both_ways(name, composed) for name in KERNELS}


class NumpyKernels:
    """The operators by NumPy's kernels."""

    name = "numpy"

    def kernels(self):
        tape.use_kernels(self.name)
        return kernels()


class NumbaKernels(NumpyKernels):
    """The operators by the kernels compiled with Numba."""

    name = "numba"


class Parallel:
    """The same with a part of each batch on each processor."""

    @staticmethod
    def training_step(sizes):
        return training_step(sizes, nn.DataParallel)


class Processes:
    """The same in a process for each processor."""

    @staticmethod
    def training_step(sizes):
        return training_step(sizes, lambda model: nn.DataParallel(model, processes=True))


class Composed:
    """The operators by their definitions alone."""

    @staticmethod
    def kernels():
        return kernels(composed=True)
