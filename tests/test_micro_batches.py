"""Gradients added up over micro-batches, weighted by tokens; averages of weights."""

import copy
import math

import numpy as np
import pytest

import nn
from nn.training.engines import Diverged, TapeEngine
from nn.training.parts import counted_targets
from tests.checks import Recorder, in_float64

IDX = np.random.default_rng(0).integers(0, 7, (7, 5))
TARGETS = np.random.default_rng(1).integers(0, 7, (7, 5))
for row, length in enumerate([5, 1, 0, 2, 5, 0, 3]):       # padded rows of different lengths
    TARGETS[row, length:] = -1

MODELS = {
    "gpt": lambda: nn.GPT(nn.GPTConfig(7, 5, 1, 2, 8), rng=0),
    "lstm": lambda: nn.RecurrentLM(nn.RecurrentConfig(7, 5, "lstm", 1, 6), rng=0)}


def updated(make, size, steps=3, grad_clip=0.5):
    """The losses of some updates, and the model after them."""
    model = in_float64(make())
    engine = TapeEngine(model, nn.AdamW(model.parameters()), grad_clip, size)
    return [engine.update(i, (IDX, TARGETS), 0.01) for i in range(1, steps + 1)], model


@pytest.mark.filterwarnings("ignore:cross_entropy. all 5 targets")      # of the means below alone
@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
@pytest.mark.parametrize("size", [1, 2, 3, 6])
def test_an_update_of_several_micro_batches_is_that_of_one_large_batch(make, size):
    losses, model = updated(make, size)
    wanted, whole = updated(make, None)
    np.testing.assert_allclose(losses, wanted, rtol=1e-12)
    for (name, p), q in zip(model.named_parameters(), whole.named_parameters()):
        np.testing.assert_allclose(p.data, q[1].data, rtol=1e-8, atol=1e-10, err_msg=name)
    # The mean of the means of the micro-batches would be something else.
    first = in_float64(make())
    means = [first(IDX[i:i + size], TARGETS[i:i + size])[1].item() for i in range(0, 7, size)]
    assert abs(np.mean(means) - wanted[0]) > 1e-4


@pytest.mark.parametrize("size, rows", [(None, [7]), (7, [7]), (9, [7]), (3, [3, 3, 1]),
                                        (1, [1] * 5)])           # two rows are padding alone
def test_no_more_rows_are_run_at_a_time(size, rows):
    model = MODELS["gpt"]()
    forward = model.forward = Recorder(model.forward)
    TapeEngine(model, nn.SGD(model.parameters(), lr=1.0), micro_batch_size=size).update(
        1, (IDX, TARGETS), 0.1)
    assert [len(idx) for (idx, _), _ in forward.calls] == rows


def test_numbers_as_targets_count_each_and_ignored_tokens_do_not():
    assert counted_targets([[1, -1], [0, 6]]) == 3 and counted_targets(np.array([-1, -1])) == 0
    assert counted_targets(np.array([[-1.0, 2.0, 0.5]])) == 3


def test_a_batch_without_a_target_that_counts_changes_nothing():
    for size in (None, 2):
        model = MODELS["gpt"]()
        before = model.state_dict()
        engine = TapeEngine(model, nn.SGD(model.parameters(), lr=1.0), micro_batch_size=size)
        with pytest.warns(UserWarning, match="cross_entropy: all .* targets are -1"):
            assert engine.update(1, (IDX, np.full_like(IDX, -1)), 0.1) == 0
        for name, p in model.named_parameters():
            np.testing.assert_array_equal(p.data, before[name])


def test_a_micro_batch_that_diverges_changes_nothing():
    class Root(nn.Module):
        def __init__(self):
            self.weight = nn.Parameter([1.0])

        def forward(self, x, y):
            return None, (self.weight * x - y).mean()
    model = Root()
    engine = TapeEngine(model, nn.SGD(model.parameters(), lr=1.0), micro_batch_size=1)
    with pytest.raises(Diverged, match="the loss is nan at step 3"):
        engine.update(3, (np.ones((3, 1)), np.array([[1.0], [math.nan], [1.0]])), 0.1)
    assert model.weight.item() == 1.0


@pytest.mark.parametrize("size", [0, -1, 1.5, "2"])
def test_a_micro_batch_of_no_rows_is_refused(size):
    model = MODELS["gpt"]()
    with pytest.raises(ValueError, match="micro_batch_size must be a positive integer or None, got"):
        TapeEngine(model, nn.SGD(model.parameters(), lr=1.0), micro_batch_size=size)


# --- averages of weights ---


def walked(average, model, count=4):
    """Update the averages along a path of random weights; the path, with the first weights."""
    rng, path = np.random.default_rng(0), [model.state_dict()]
    for _ in range(count):
        for p in model.parameters():
            p.data = p.data + rng.standard_normal(p.shape).astype(p.dtype)
        average.update()
        path.append(model.state_dict())
    return path


def test_the_average_is_the_sum_with_weights_that_fall_exponentially():
    model = in_float64(MODELS["lstm"]())
    average = nn.ExponentialMovingAverage(model, 0.8)
    path = walked(average, model)
    shares = [0.8 ** 4, *(0.2 * 0.8 ** k for k in (3, 2, 1, 0))]
    assert sum(shares) == pytest.approx(1)
    for name, found in average.state_dict().items():
        wanted = sum(share * weights[name] for share, weights in zip(shares, path))
        np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-14)
    assert list(average.state_dict()) == [name for name, _ in model.named_parameters()]


def test_within_the_block_the_model_is_the_average_and_afterwards_itself():
    model = MODELS["lstm"]()
    average = nn.ExponentialMovingAverage(model, 0.5)
    before = walked(average, model)[-1]
    twin = copy.deepcopy(model)
    twin.load_state_dict(average.state_dict())
    with pytest.raises(KeyboardInterrupt):
        with average.applied() as applied:
            assert applied is model
            np.testing.assert_array_equal(model(IDX)[0].data, twin(IDX)[0].data)
            raise KeyboardInterrupt
    for name, p in model.named_parameters():
        np.testing.assert_array_equal(p.data, before[name])
        assert (p.data != average.state_dict()[name]).any()


def test_an_average_that_is_saved_goes_on_to_the_bit():
    model = MODELS["lstm"]()
    average, again = (nn.ExponentialMovingAverage(model, 0.9) for _ in range(2))
    walked(average, model)
    again.load_state_dict(average.state_dict())
    for one in (average, again):
        one.update()
    for name, array in average.state_dict().items():
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, again.state_dict()[name])


def test_the_average_of_half_precision_is_kept_in_float32():
    model = nn.Linear(2, 3, rng=0)
    model.weight = nn.Parameter(np.ones((2, 3), np.float16))
    average = nn.ExponentialMovingAverage(model, 0.9999)
    model.weight.data = np.full((2, 3), 2, np.float16)
    average.update()
    np.testing.assert_allclose(average.state_dict()["weight"], 1.0001, rtol=1e-7)
    with average.applied():
        assert model.weight.dtype == np.float16


@pytest.mark.parametrize("decay", [1.0, -0.1, math.nan, None, True])
def test_a_decay_out_of_range_is_refused(decay):
    with pytest.raises(ValueError, match=r"decay must be in \[0, 1\), got"):
        nn.ExponentialMovingAverage(nn.Linear(2, 3, rng=0), decay)


def test_averages_of_another_model_are_refused_by_name():
    average = nn.ExponentialMovingAverage(nn.Linear(2, 3, rng=0))
    with pytest.raises(ValueError, match="MovingAverage: missing .bias. .*; unexpected .bais."):
        average.load_state_dict({"weight": np.ones((2, 3)), "bais": np.ones(3)})
    np.testing.assert_array_equal(average.state_dict()["bias"], np.zeros(3))
