"""Three programs as students write them for the static graph API, in tests/programs, as they are.

Each sums a batch axis in its update, and no line of it is changed. Two need `batched_gradients(True)`
before them, and are told so; the third has a product of its own, which leaves the axis in.
"""

import importlib

import numpy as np
import pytest

import tape.lazy as ad

PROGRAMS = {"static_torch_sgd": "train_model", "static_numpy_ops": "train",
            "static_numpy_adam": "train"}


@pytest.fixture
def batched_program():
    ad.batched_gradients(True)
    yield
    ad.batched_gradients(None)


def digits():
    """1,000 images (N, 8, 8) with pixels from 0 to 1, and their labels; drawn where there are none."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        rng = np.random.default_rng(0)
        labels = rng.integers(0, 10, 1000)
        prototypes = rng.random((10, 8, 8)) ** 3                 # mostly dark, as digits are
        return np.clip(prototypes[labels] + rng.normal(0, 0.1, (1000, 8, 8)), 0, 1), labels
    data = load_digits()
    return data.images[:1000] / 16, data.target[:1000]


def run(name):
    if "torch" in name:
        pytest.importorskip("torch")
    module = importlib.import_module(f"tests.programs.{name}")
    images, labels = digits()
    return getattr(module, PROGRAMS[name])(images, labels, 10)


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_learns_with_batch_axes(name, batched_program):
    losses, right = run(name)
    assert np.mean(losses[-5:]) < 0.75 * losses[0]
    assert right > 0.5                        # of ten classes


@pytest.mark.parametrize("name, message", [
    ("static_torch_sgd", "every row of W_. has moved by the same.* Take the sum"),
    ("static_numpy_adam", "axis 1 is out of bounds for array of dimension 1")])       # NumPy's own
def test_without_them_it_is_told(name, message):
    with pytest.raises(ValueError, match=message):
        run(name)


def test_gradients_of_the_programs_own_operators_keep_their_axes():
    losses, right = run("static_numpy_ops")
    assert right > 0.5 and losses[-1] < losses[0]
