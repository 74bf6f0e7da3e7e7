"""Picking elements and putting gradients back at their places, in one sum with other gradients."""

import numpy as np
import pytest

import tape
from tape import grad, ops
from tests.checks import leaf


@pytest.mark.parametrize("pieces", [
    lambda x: [x[i] for i in range(4)], lambda x: list(x), lambda x: ops.split(x, 4),
    lambda x: ops.split(x, [1, 3]), lambda x: [x[1:], x[::-1], x[[0, 0, 3]], x[x.data[:, 0] > 0]],
    lambda x: [ops.embedding(x, [0, 3, 3]), x[(0, 1), (1, 1)], x[..., 0], x * 2],
    lambda x: [x[((0, 0), (1, 1))], x[np.array(2)], x[np.array([True, False, True, True])]]])
@pytest.mark.parametrize("create_graph", [False, True])
def test_several_picks_of_one_array(pieces, create_graph):
    values = np.random.default_rng(0).standard_normal((4, 3))

    def loss(x):
        return sum(((p * p * p).sum() for p in pieces(x)), (x * 0.5).sum())
    assert tape.gradcheck(loss, [values], order=2)
    x = leaf(values)
    slope = grad(loss(x), x, create_graph=create_graph)
    if create_graph:                    # the third derivative, along a line
        def along(step):
            y = leaf(values + step)
            first = grad(loss(y), y, create_graph=True)
            return grad((first * first).sum(), y, create_graph=True).sum(), y
        total, y = along(0.0)
        third = grad(total, y).data.sum()
        ends = [along(step)[0].item() for step in (1e-5, -1e-5)]
        np.testing.assert_allclose(third, (ends[0] - ends[1]) / 2e-5, rtol=1e-6)
    loss(x).backward()
    np.testing.assert_allclose(x.grad, slope.data)


@pytest.mark.parametrize("pick", [
    lambda t: t[[1, 2, 1]], lambda t: t[..., [0, 0]], lambda t: t[(0, 0), (1, 1)], lambda t: t[1:],
    lambda t: ops.embedding(t, [0, 2, 2]), lambda t: ops.split(t, [1])[1].sum() * t[0]])
def test_picks_join_a_sum_of_any_layout(pick):
    # The sum of the two gradients of t * t is laid out as t is: in columns.
    values = np.random.default_rng(0).standard_normal((4, 3))
    assert tape.gradcheck(lambda x: (x.T * 1.0 * (x.T * 2.0)).sum() + (pick(x.T * 1.0) ** 3).sum(),
                          [values])

    def several(x):
        t = x.T * 1.0
        return (t * t).sum() + (pick(t) ** 3).sum() + (t * t * t).sum() + pick(t).sum()
    assert tape.gradcheck(several, [values], order=2)
