"""`tape.show`: the table of what was recorded and what it keeps."""

import functools

import numpy as np
import pytest

import tape
import tape.lazy
from tape import Tensor, no_grad, ops
from tests.checks import leaf

leaf32 = functools.partial(leaf, dtype=np.float32)


def table(*outputs):
    """The rows, each split into its columns."""
    return [[cell.strip() for cell in line.split("  ") if cell.strip()]
            for line in tape.show(*outputs).splitlines()]


def test_the_exact_table():
    x, w = leaf32([[1.0, 2.0, 3.0]]), leaf32(np.ones((3, 2)))
    h = (x @ w).exp()
    assert tape.show((h * h + 1).mean(axis=1)) == """\
position  operator  parents                   shape   bytes kept
       0  matmul    leaf (1, 3), leaf (3, 2)  (1, 2)           0
       1  exp       0                         (1, 2)           8
       2  mul       1, 1                      (1, 2)           0
       3  add       2, -                      (1, 2)           0
       4  mean      3                         (1,)             0
5 records, 8 bytes kept"""


def test_what_is_kept_is_counted_once():
    x = leaf32(np.ones(100))
    y = x.exp()                     # keeps its result, 400 bytes
    z = (y * y).relu() + y.tanh()   # mul keeps y again; relu and tanh keep their own results
    assert tape.show(z).endswith("5 records, 1,200 bytes kept")


def test_constants_count():
    x = leaf32(np.ones(100))
    assert tape.show(x * np.ones(100, np.float32)).endswith("400 bytes kept")
    assert tape.show(x + np.ones(100, np.float32)).endswith(" 0 bytes kept")


def test_stand_ins_take_no_memory():
    for t in (leaf32(np.ones((50, 2))), leaf32([1.0]), leaf32(2.0)):
        for result in (t.sum(), t.reshape(-1), t.mean(), t.expand_dims(0)):
            assert tape.show(result).endswith("1 records, 0 bytes kept")


def test_leaves_are_not_counted_and_their_transposes_are_copies():
    # The weight of a linear layer is there anyway; its transpose, being no view, is memory.
    w, x = leaf32(np.ones((3, 2))), leaf32(np.ones((4, 3)))
    assert tape.show(x @ w).endswith("1 records, 0 bytes kept")
    assert tape.show(x @ w.T.T).endswith("3 records, 24 bytes kept")


def test_many_parents_are_abbreviated():
    parts = [leaf32([1.0]) for _ in range(9)]
    assert table(ops.concatenate(parts))[1][2] == \
        "leaf (1,), leaf (1,), leaf (1,), leaf (1,), ... 9 in all"


def test_several_outputs_share_one_table():
    x = leaf32(1.0)
    y = x * 2
    a, b = y.exp(), ops.sin(y)
    rows = table(a, b, a)
    assert [row[1] for row in rows[1:-1]] == ["mul", "exp", "sin"]
    assert [row[2] for row in rows[1:-1]] == ["leaf (), -", "0", "0"]


def test_fused_operators_are_one_row_under_their_own_name():
    x = leaf32(np.ones((2, 3)))
    names = [row[1] for row in table(ops.cross_entropy(ops.layer_norm(x.gelu()), [0, 1]))[1:-1]]
    assert names == ["gelu", "layer_norm", "cross_entropy"]


def test_operators_have_the_names_that_users_call_them_by():
    x = leaf32([[1.0, 2.0]])
    calls = {"power": x ** 2, "concatenate": ops.concatenate([x, x]), "stack": ops.stack([x, x]),
             "pad": ops.pad(x, 1), "getitem": x[0], "embedding": ops.embedding(x, [0]),
             "causal_attention": ops.causal_attention(x, x, x), "where": ops.where(True, x, 0)}
    for name, result in calls.items():
        assert table(result)[1][1] == name


def test_a_released_tape():
    x = leaf32(2.0)
    y = x * x
    y.backward()
    assert table(y)[1] == ["0", "mul", "()", "released"]
    assert tape.show(y).endswith("1 records, 0 bytes kept")


def test_nothing_was_recorded():
    x = leaf32(2.0)
    with no_grad():
        silent = x * 2
    for tensor in (x, silent, Tensor(1.0) * 2):
        assert tape.show(tensor).startswith("nothing was recorded")


def test_what_is_no_tensor_is_refused_and_a_node_sent_to_its_own_picture():
    for value in (tape.lazy.Variable("x"), 1.0):
        with pytest.raises(TypeError, match="outputs must be Tensors, got .*tape.lazy.show"):
            tape.show(value)
