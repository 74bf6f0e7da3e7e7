"""The summary of a model: against the tape of a run, by hand, and without memory."""

import tracemalloc

import numpy as np
import pytest

import nn
import tape
from nn.layers.summary import Row
from tests.checks import run_python

IDX = np.arange(12).reshape(2, 6) % 7
IMAGES = np.random.default_rng(0).random((3, 4, 4), np.float32)

MODELS = {
    "gpt": (lambda: nn.GPT(nn.GPTConfig(7, 8, 2, 2, 8, dropout=0.1), rng=0), (IDX, IDX)),
    "llama": (lambda: nn.GPT(nn.GPTConfig(
        7, 8, 2, 4, 16, norm_kind="rms", activation="swiglu", position="rotary", bias=False,
        tie_weights=False, n_kv_head=2), rng=0), (IDX, IDX)),
    "post-norm": (lambda: nn.GPT(nn.GPTConfig(7, 8, 1, 2, 8, norm="post", activation="relu",
                                              position="sinusoidal", init="xavier-he"), rng=0), (IDX,)),
    "orthogonal": (lambda: nn.GPT(nn.GPTConfig(7, 8, 1, 2, 8, activation="gelu_exact",
                                               init="orthogonal"), rng=0), (IDX, IDX)),
    "seq2seq": (lambda: nn.Seq2SeqTransformer(nn.Seq2SeqConfig(7, 7, 8, 2, 2, 8), rng=0),
                (IDX, IDX[:, :4], IDX[:, 1:5])),
    "vision": (lambda: nn.VisionTransformer(nn.VisionConfig((4, 4), 2, 3, 2, 2, 8), rng=0),
               (IMAGES, np.array([0, 2, 1]))),
    "rnn": (lambda: nn.RecurrentLM(nn.RecurrentConfig(7, 8, "rnn", 2, 6), rng=0), (IDX, IDX)),
    "lstm": (lambda: nn.RecurrentLM(nn.RecurrentConfig(7, 8, "lstm", 2, 6), rng=0), (IDX, IDX)),
    "gru": (lambda: nn.RecurrentLM(nn.RecurrentConfig(7, 8, "gru", 2, 6), rng=0), (IDX, IDX)),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_model_that_is_described_has_the_figures_of_one_that_is_run(name):
    make, inputs = MODELS[name]
    model = make()
    ran = nn.summary(model, *inputs)
    with nn.without_memory():
        hollow = make()
    assert all(p.data.strides == (0,) * p.ndim for p in hollow.parameters())
    assert nn.summary(hollow, *inputs) == ran
    out, loss = model(*inputs)
    assert ran.rows[0].shape == out.shape and ran.rows[0].flops == ran.flops > 0
    assert ran.parameters == model.parameter_count() and ran.parameter_bytes == 4 * ran.parameters
    shown = tape.show(out if loss is None else loss)
    assert shown.endswith(f" records, {ran.activation_bytes:,} bytes kept")


def test_the_flops_of_gpt_are_those_of_its_formula():
    """24 C^2 + 4 T C for each token in a block, and 2 C V for its logits.

    Kaplan et al. 2020, arXiv:2001.08361, table 1.
    """
    B, T, C, V, L = 2, 6, 8, 7, 2
    found = nn.summary(MODELS["gpt"][0]().eval(), *MODELS["gpt"][1])
    assert found.flops == B * T * (L * (24 * C * C + 4 * T * C) + 2 * C * V)
    assert found.training_flops == 3 * found.flops


def test_rows_include_what_is_inside_and_count_tied_parameters_once():
    class Tied(nn.Module):
        def __init__(self):
            self.first, self.second = nn.Linear(3, 3, rng=0), nn.Linear(3, 3, rng=1)
            self.second.weight = self.first.weight
            self.spare = nn.Linear(3, 2, rng=2)

        def forward(self, x):
            return self.second(self.first(self.first(x)))

    found = nn.summary(Tied(), np.ones((4, 3), np.float32))
    assert found.rows == [
        Row("", "Tied", (4, 3), 12 + 3 + 8, 0, 3 * 72, 3 * 48),
        Row("first", "Linear", (4, 3), 12, 0, 2 * 72, 2 * 48),
        Row("second", "Linear", (4, 3), 3, 9, 72, 48),
        Row("spare", "Linear", None, 8, 0, 0, 0)]
    assert found.parameters == 23 and found.training_flops == 3 * 216 - 72      # x wants no gradient
    assert str(found) == """\
module    kind    output shape  parameters  FLOPs  kept, bytes
(model)   Tied    (4, 3)                23    216          144
  first   Linear  (4, 3)                12    144           96
  second  Linear  (4, 3)                3*     72           48
  spare   Linear  -                      8      0            0
* and others that are tied: they are counted in a module above
23 parameters, 92 B
216 FLOP forward, 576 FLOP forward and backward
144 B of activations kept for backward"""


def test_equal_neighbours_have_one_row_and_others_do_not():
    layers = nn.Sequential(lambda x: x + 1, *[nn.Linear(2, 2, rng=i) for i in range(3)],
                           nn.Linear(2, 3, rng=3), nn.Linear(3, 3, rng=4), nn.Linear(3, 3, rng=5))
    lines = str(nn.summary(layers, nn.Parameter(np.ones((1, 2))))).splitlines()
    assert [line.split("  Linear")[0].rstrip() for line in lines[2:5]] == [
        "  1 ... 3", "  4", "  5, 6"]


def test_a_summary_leaves_the_model_as_it_was():
    model, other = (MODELS["gpt"][0]() for _ in range(2))
    nn.summary(model, IDX, IDX)
    for m in (model, other):
        m(IDX, IDX)[1].backward()
    for p, q in zip(model.parameters(), other.parameters()):
        np.testing.assert_array_equal(p.grad, q.grad)            # dropout drew the same
    assert all("forward" not in vars(module) for module in model.modules())
    model.forward = lambda: "mine"
    nn.summary(model)
    assert model() == "mine"


def test_a_call_that_fails_leaves_the_model_as_it_was():
    model = MODELS["gpt"][0]()
    with pytest.raises(ValueError, match="at most block_size = 8"):
        nn.summary(model, np.zeros((1, 9), int))
    assert all("forward" not in vars(module) for module in model.modules())


def test_gpt2_has_its_size():
    with nn.without_memory():
        model = nn.GPT(nn.GPTConfig(50257, 1024, n_layer=12, n_head=12, n_embd=768))
    assert nn.summary(model, np.zeros((1, 8), int)).parameters == 124_439_808


def test_gpt2_of_1500_million_is_described_in_little_memory():
    """Less than the hidden layer of one block would take: none is computed."""
    tracemalloc.start()
    with nn.without_memory():
        model = nn.GPT(nn.GPTConfig(50257, 1024, n_layer=48, n_head=25, n_embd=1600))
    idx = np.zeros((1, 1024), int)
    found = nn.summary(model, idx, idx)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.parameters == 1_557_611_200 and found.activation_bytes > 5e9
    T, C, V, L = 1024, 1600, 50257, 48
    assert found.flops == T * (L * (24 * C * C + 4 * T * C) + 2 * C * V)
    assert peak < 20e6 < T * 4 * C * 4


def test_the_whole_process_stays_small():
    """What NumPy and BLAS take beside the arrays is counted here too."""
    pytest.importorskip("resource")
    done = run_python("-c", (
        "import resource, numpy as np, nn\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "with nn.without_memory():\n"
        "    model = nn.GPT(nn.GPTConfig(50257, 1024, n_layer=48, n_head=25, n_embd=1600))\n"
        "nn.summary(model, np.zeros((1, 1024), int))\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)"))
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 100                   # MB; on macOS, where the unit is a byte, far less


def test_a_model_without_memory_is_filled_by_loading():
    make, inputs = MODELS["gpt"]
    with nn.without_memory():
        hollow = make()
    model = make()
    hollow.load_state_dict(model.state_dict())
    assert hollow.eval()(*inputs)[1].item() == model.eval()(*inputs)[1].item()
    optimizer = nn.SGD(hollow.parameters(), lr=0.1)
    hollow(*inputs)[1].backward()
    optimizer.step()


def test_without_memory_holds_for_its_block_alone():
    with nn.without_memory():
        p = nn.Parameter([1, 2], np.float64)
    assert p.shape == (2,) and p.dtype == np.float64 and p.requires_grad and p.data.strides == (0,)
    assert nn.Parameter([1.0]).data.tolist() == [1.0]


def test_a_wrapper_has_the_figures_of_its_model():
    model, ids = nn.GPT(nn.GPTConfig(7, 8, 2, 2, 8), rng=0), np.zeros((2, 8), int)
    plain, wrapped = nn.summary(model, ids), nn.summary(nn.DataParallel(model, 1), ids)
    for a, b in zip(plain.rows, wrapped.rows[1:], strict=True):
        assert (a.kind, a.parameters, a.tied) == (b.kind, b.parameters, b.tied)
