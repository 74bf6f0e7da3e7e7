"""Every way to reach an array that the tape keeps, and to change it before the walk back.

Where the tape keeps the leaf's own array the walk says "in place"; where it keeps a copy it gives the
gradient at the values of the forward run.
"""

import contextlib

import numpy as np
import pytest

import tape
from tape import Tensor, grad, ops
from tape import mutation
from tests.checks import leaf

SIZES = [3, 1000, 5000]          # a small array, and two larger ones


def values(n):
    """Sorted in neither direction, so that each of the changes below changes them."""
    return np.random.default_rng(1).uniform(1, 2, n)


CHANGES = {
    "assignment": lambda a: a.__setitem__(0, 9.0),
    "in place": lambda a: np.add(a, 1, out=a),
    "exchange": lambda a: a.__setitem__([0, -1], a[[-1, 0]]),         # the sum stays what it is
    "reverse": lambda a: a.__setitem__(slice(None), a[::-1].copy()),
    "sort": lambda a: a.sort(),
    "sign": lambda a: np.negative(a, out=a),
    "copyto": lambda a: np.copyto(a, 0.0),
    "fill": lambda a: a.fill(2.0),
    "the last bit": lambda a: a.__setitem__(-1, np.nextafter(a[-1], 9)),
    "ctypes": lambda a: a.ctypes.data and a.put(0, 7.0),
    "memoryview": lambda a: memoryview(a).__setitem__(0, 1.5)}

REACHES = {
    "data": lambda t: t.data, "numpy": lambda t: t.numpy(), "a view": lambda t: t.data[:],
    "reversed view": lambda t: t.data[::-1], "reshaped": lambda t: t.data.reshape(1, -1)[0],
    "frombuffer": lambda t: np.frombuffer(t.data, t.dtype),
    "memoryview": lambda t: np.asarray(memoryview(t.data))}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("reach", REACHES.values(), ids=REACHES)
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("when", ["before it is recorded", "after it was recorded"])
def test_a_leaf_that_is_reached_and_changed(reach, change, size, when):
    x = leaf(values(size))
    before = x.data.copy()
    alias = reach(x) if when == "before it is recorded" else None
    y = (x * x).sum()
    change(reach(x) if alias is None else alias)
    assert (x.data != before).any()
    with pytest.raises(RuntimeError, match="mul: its input x, .* was changed in place"):
        y.backward()
    assert x.grad is None


@pytest.mark.parametrize("size", SIZES)
def test_a_leaf_reached_between_two_uses(size):
    x = leaf(values(size))
    y = (x * x).sum()
    alias = x.data
    z = y + (x * x * x).sum()
    alias[0] += 1
    with pytest.raises(RuntimeError, match="in place"):
        z.backward()


def test_an_alias_that_is_only_looked_at_costs_nothing_but_a_checksum():
    x = leaf(values(5000))
    alias = x.data
    (x * x).sum().backward()
    np.testing.assert_array_equal(x.grad, 2 * alias)


def test_a_change_that_is_undone_is_no_change():
    x = leaf(values(5000))
    y = (x * x).sum()
    x.data[0] += 1
    x.data[0] = values(5000)[0]
    y.backward()
    np.testing.assert_array_equal(x.grad, 2 * x.data)


def test_shape_and_dtype_of_a_kept_array():
    x = leaf(np.ones((2, 2)))
    y = (x * x).sum()
    x.data.resize(4, refcheck=False)
    with pytest.raises(RuntimeError, match=r"mul: .* shape \(4,\), was changed in place"):
        y.backward()


def test_a_training_loop_takes_no_checksum(monkeypatch):
    def refuse(array):
        raise AssertionError("a checksum was taken")
    w, b = leaf(np.ones((40, 40))), leaf(np.ones(40))
    monkeypatch.setattr(mutation, "checksum", refuse)
    for _ in range(3):
        w.grad = b.grad = None
        h = w @ (w * w) + b
        (ops.layer_norm(h, b, b) * w).sum().backward()
        for p in (w, b):
            p.data -= 0.1 * p.grad
    assert np.isfinite(w.data).all()


# --- what an operator returns may be its very input ---

COPIES = {
    "squeeze": lambda p: p.squeeze(), "reshape": lambda p: p.reshape(p.shape),
    "getitem": lambda p: p[...], "slice": lambda p: p[:], "transpose": lambda p: p.transpose(0),
    "astype": lambda p: p.astype(p.dtype), "broadcast_to": lambda p: p.broadcast_to(p.shape),
    "moveaxis": lambda p: ops.moveaxis(p, 0, 0), "split": lambda p: p.split(1)[0],
    "identity of a user's": tape.primitive(lambda x: x, lambda g: g, name="same"),
    "view of a user's": tape.primitive(lambda x: x[::-1][::-1], lambda g: g, name="view")}

# +p is p itself, and the rules of the others ask for p.
KEEPS_THE_LEAF = {"positive": (lambda p: +p, "mul"), "power": (lambda p: p ** 1, "power"),
                  "clip": (lambda p: p.clip(), "clip")}


@pytest.mark.parametrize("same", COPIES.values(), ids=COPIES)
@pytest.mark.parametrize("create_graph", [False, True])
def test_a_result_is_not_the_leaf_that_it_was_made_from(same, create_graph):
    p = leaf([1.0, 2.0, 4.0])
    q = same(p)
    y = (q * q).sum()
    p.data -= 0.5
    slope = grad(y, p, create_graph=create_graph)
    np.testing.assert_array_equal(slope.data, [2, 4, 8])


@pytest.mark.parametrize("same, operator", KEEPS_THE_LEAF.values(), ids=KEEPS_THE_LEAF)
@pytest.mark.parametrize("create_graph", [False, True])
def test_a_leaf_that_is_kept_for_the_result_it_equals(same, operator, create_graph):
    p = leaf([1.0, 2.0, 4.0])
    q = same(p)
    y = (q * q).sum()
    p.data -= 0.5
    with pytest.raises(RuntimeError, match=f"{operator}: its input x, .* was changed in place"):
        grad(y, p, create_graph=create_graph)


def test_a_users_operator_that_returns_a_constant_array():
    second = tape.primitive(lambda x, y, /: y, None, lambda g: g, name="second")
    x, c = leaf([1.0, 2.0]), np.array([3.0, 4.0])
    y = second(c, x) * ops.add(second(x.detach(), x), 0)
    assert y.shape == (2,)
    first = tape.primitive(lambda x, y, /: y, lambda g: g * 0, None, name="first")
    y = first(x, c)
    z = (y * x).sum()
    c[:] = 0
    z.backward()
    np.testing.assert_array_equal(x.grad, [3, 4])


@pytest.mark.parametrize("function", [
    lambda x: ops.layer_norm(x), ops.gelu, lambda x: ops.causal_attention(x, x, x),
    lambda x: ops.cross_entropy(x, [0, 1])], ids=["layer_norm", "gelu", "attention", "cross entropy"])
def test_fused_operators_under_create_graph(function):
    # Their second derivative runs the composed definition on the kept inputs again.
    x = leaf([[1.0, 2.0], [3.0, -1.0]])
    slope = grad((function(x) ** 2).sum(), x, create_graph=True)
    np.multiply(x.data, 0.5, out=x.data)
    with pytest.raises(RuntimeError, match="was changed in place"):
        grad((slope ** 2).sum(), x)


# --- what was computed cannot be written to ---


@pytest.mark.parametrize("reach", [np.asarray, lambda t: t.data, lambda t: t.numpy(),
                                   lambda t: t.__array__(), lambda t: np.asarray(t.data)])
def test_an_array_of_a_result_is_read_only(reach):
    with tape.no_grad():
        t = leaf([1.0, 2.0]).exp()
    assert not reach(t).flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        reach(t)[0] = 1


def test_a_copy_of_a_result_can_be_written_to():
    with tape.no_grad():
        t = leaf([1.0, 2.0]).exp()
    np.array(t)[0] = 1
    t.detach().data[0] = 1
    np.testing.assert_array_equal(t.data, np.exp([1.0, 2.0]))


# --- operands, strides, attributes and cotangents ---


def test_a_condition_that_is_an_operand_too():
    # The operand is cast, so the array itself occurs once where the tensor occurs twice.
    t, f = Tensor(np.array([1, 0, 1])), leaf([1.0, 2.0, 3.0])
    alias = t.data
    y = tape.where(t, t, f).sum()
    alias[:] = 1 - alias
    with pytest.raises(RuntimeError, match="where: its input condition, .* was changed in place"):
        y.backward()


def test_strides_that_are_assigned_to():
    x = leaf(np.arange(4096.0).reshape(64, 64))
    y = (x * x).sum()
    array = x.data
    with pytest.warns(DeprecationWarning) if np.lib.NumpyVersion(np.__version__) >= "2.4.0" else (
            contextlib.nullcontext()):
        array.strides = array.strides[::-1]
    with pytest.raises(RuntimeError, match="in place"):
        y.backward()


@pytest.mark.parametrize("attribute", [[[1, 0]], [np.array([1, 0])], (np.array([1, 0]),)], ids=repr)
def test_attributes_within_attributes(attribute):
    t, w = leaf([1.0, 2.0]), np.array([10.0, 20.0, 30.0])
    y = (tape.pad(t, attribute) * w).sum()
    attribute[0][:] = [0, 1]
    y.backward()
    np.testing.assert_array_equal(t.grad, [20, 30])


def test_an_upstream_gradient_under_create_graph():
    x, v = leaf([1.0, 2.0]), np.ones(2)
    slope = grad(x ** 2, x, v, create_graph=True)
    same = grad(x.reshape(2), x, v, create_graph=True)
    v[:] = 7
    np.testing.assert_array_equal(slope.data, [2, 4])
    np.testing.assert_array_equal(same.data, [1, 1])
    np.testing.assert_array_equal(grad(slope.sum(), x).data, [2, 2])


@pytest.mark.parametrize("join", [ops.stack, ops.concatenate])
def test_joined_leaves_may_change(join):
    # Their rule asks for no values.
    a = leaf([1.0, 2.0])
    y = join([a, a]).sum()
    a.data -= 1
    y.backward()
    np.testing.assert_array_equal(a.grad, [2, 2])


def test_a_cotangent_is_not_the_gradient_itself():
    x, v = leaf([1.0]), Tensor(np.array([3.0]))
    slope = grad(x + 1.0, x, grad_outputs=v, create_graph=True)
    v.data[:] = 7
    np.testing.assert_array_equal(slope.data, [3])


# --- the checksum ---


@pytest.mark.parametrize("n", [1, 3, 513, 1024, 1025, 4096 * 3 + 5])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.uint8])
def test_a_checksum_tells_any_two_arrays_apart(n, dtype):
    rng = np.random.default_rng(n)
    x = rng.integers(0, 100, n).astype(dtype)
    assert mutation.checksum(x) == mutation.checksum(x.copy())
    for _ in range(30):
        other = x.copy()
        i, j = rng.integers(0, n, 2)
        other[[i, j]] = other[[j, i]]
        assert (mutation.checksum(other) == mutation.checksum(x)) == bool((other == x).all())
        other = x.copy()
        other[i] += 1
        assert mutation.checksum(other) != mutation.checksum(x)


def test_references_are_counted_right():
    x = Tensor(values(3), requires_grad=True)
    assert mutation.version_of(x).state is None
    alias = x.data[1:]
    assert mutation.version_of(x).state is not None
    del alias
    assert mutation.version_of(x).state is None


@pytest.mark.parametrize("f", [lambda x, y: x * y, lambda x, y: y * x, lambda x, y: x * x * y,
                               lambda x, y: x @ y, lambda x, y: ops.einsum("i,i->i", x, y)])
def test_an_operator_does_not_take_its_own_references_for_the_callers(f):
    x, y = (Tensor(values(3), requires_grad=True) for _ in range(2))
    out = f(x, y)
    assert [t._version.state for t in (x, y)] == [None, None]        # so no checksum was taken
    assert out.requires_grad


def test_a_leaf_keeps_its_version_and_asks_anew_who_has_the_array():
    x = Tensor(values(3), requires_grad=True)
    (x * x).sum().backward()
    version = x._version
    assert version is not None
    del version
    before = id(x._version)
    y = (x * x).sum()
    assert id(x._version) == before
    y.backward()
    alias = x._data                        # by another way than `.data`, which would tell the version
    y = (x * x).sum()
    alias += 1
    with pytest.raises(RuntimeError, match="was changed in place"):
        y.backward()


def test_an_array_that_was_given_away_while_no_record_had_it_costs_no_checksum(monkeypatch):
    x = Tensor(values(3), requires_grad=True)
    (x * x).sum().backward()
    monkeypatch.setattr(mutation, "checksum", lambda array: pytest.fail("a checksum was taken"))
    x.data += 1
    (x * x).sum().backward()
    np.testing.assert_allclose(x.grad, 2 * values(3) + 2 * (values(3) + 1))
