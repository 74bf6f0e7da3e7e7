"""Lists and integers beside floats, as operands of the fused operators: they take the floats' dtype."""

import numpy as np
import pytest

import tape
import tape.lazy as ad
from tests.checks import leaf

X = np.array([[1.0, 2.0], [3.0, 5.0]])
ROWS = [[1, 2], [3, 4]]
CALLS = {
    "layer_norm, lists": lambda x: tape.layer_norm(x, [1.5, 2], [0.5, 1]),
    "layer_norm, integers": lambda x: tape.layer_norm(x, np.array([1, 2])),
    "layer_norm of a list": lambda x: tape.layer_norm([[1, 2], [3, 5]], tape.sum(x, 0)),
    "rms_norm": lambda x: tape.rms_norm(x, [1, 2]),
    "swiglu": lambda x: tape.swiglu([[1.5, 2], [3, 4]], x),
    "attention": lambda x: tape.attention(x, x, ROWS, mask=[[True, False], [True, True]]),
    "causal_attention": lambda x: tape.causal_attention(x, ROWS, [[0.5, 1], [2, 3]]),
    "causal_self_attention": lambda x: tape.causal_self_attention(
        x, 1, ROWS, np.array(ROWS), ROWS, ROWS, None, [1, 2], None, [0.5, 1]),
}


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("name", CALLS)
def test_the_result_has_the_dtype_of_the_floats(kernel_set, name, dtype):
    x = leaf(X, dtype)
    out = CALLS[name](x)
    out.backward(np.ones(out.shape))
    assert out.dtype == x.grad.dtype == dtype
    same = leaf(X, np.float64)
    expected = CALLS[name](same)
    expected.backward(np.ones(out.shape))
    near = {"rtol": 100 * np.finfo(dtype).eps, "atol": 100 * np.finfo(dtype).eps}
    np.testing.assert_allclose(out.data, expected.data, **near)
    np.testing.assert_allclose(x.grad, same.grad, **near)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", CALLS)
def test_a_graph_and_a_frozen_run_compute_the_same_bits(name, dtype):
    x = leaf(X, dtype)
    with ad.tracing():
        out = CALLS[name](x)
    out.backward(np.ones(out.shape), retain_graph=True)
    built = ad.Variable("x")
    frozen, (given,) = ad.from_tape(out, [x])
    for node, fed in [(CALLS[name](built), built), (frozen, given)]:
        (gradient,) = ad.gradients(tape.sum(node), [fed])
        found = ad.Evaluator([node, gradient]).run({fed: X.astype(dtype)})
        assert [a.dtype for a in found] == [dtype, dtype]
        np.testing.assert_array_equal(found[0], out.data)
        np.testing.assert_array_equal(found[1], x.grad)


@pytest.mark.parametrize("values", [np.array(v) for v in ([1, 2], [True, False], [2 ** 24 + 1, 1])])
@pytest.mark.parametrize("others", [("f4", "f4"), ("f4", "f8"), ("f2", "f4")])
def test_integers_that_are_fed_are_converted_once(values, others):
    """As on the tape: to the dtype that all floats have together, not to one after the other."""
    x, weight = (np.array(a, dtype) for a, dtype in zip(([[1, 3]], [1.5, 2]), others))
    tensors = [leaf(x, x.dtype), leaf(weight, weight.dtype)]
    for bias, fed_too in [(values, True), (values, False), (values.tolist(), False)]:
        nodes = [ad.Variable("x"), ad.Variable("weight"), ad.Variable("bias")]
        eager = tape.layer_norm(*tensors, bias)
        eager.backward(np.ones(x.shape))
        node = tape.layer_norm(*nodes[:2], nodes[2] if fed_too else bias)
        outputs = [node, *ad.gradients(tape.sum(node), nodes[:2])]
        found = ad.Evaluator(outputs).run(dict(zip(nodes, [x, weight, values][:2 + fed_too])))
        for array, expected in zip(found, [eager.data, *(t.grad for t in tensors)]):
            assert array.dtype == expected.dtype
            np.testing.assert_array_equal(array, expected)
        for t in tensors:
            t.grad = None


def test_targets_and_masks_stay_what_they_are(kernel_set):
    logits = leaf([[1.0, 2, 3], [5, 1, 0]])
    by_kind = [tape.cross_entropy(logits, kind([0, 1])).item() for kind in (list, np.array, np.uint8)]
    assert len(set(by_kind)) == 1
    q = leaf(X, np.float32)
    masked = [tape.attention(q, q, q, mask=kind([[1, 0], [1, 1]])).data for kind in (
        lambda m: np.array(m, bool), lambda m: np.where(m, 0, -np.inf).astype(np.float64))]
    np.testing.assert_array_equal(*masked)


@pytest.mark.parametrize("ignored", [2 ** 63, -2 ** 63, 2 ** 70, -2 ** 70, 0.5, None, np.int64(5)])
def test_an_ignore_index_that_no_target_has_ignores_none(kernel_set, ignored):
    logits, targets = leaf([[1.0, 2, 3], [5, 1, 0]]), np.array([0, 1])
    every = tape.cross_entropy(logits, targets)
    loss = tape.cross_entropy(logits, targets, ignore_index=ignored)
    assert loss.item() == every.item()
    loss.backward()
    assert np.all(logits.grad)
