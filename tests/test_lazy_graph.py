"""The static graph itself: nodes, their names and order, gradients, pictures, and what is refused."""

import copy
import inspect
import pickle

import numpy as np
import pytest

import tape
import tape.lazy as ad
from tape import Tensor
from tests.checks import reference_counting_alone
from tests.lazy_checks import Counted, X, run, variables


# --- nodes ---


def test_a_node_has_the_fields_of_the_api():
    x, y = variables()
    node = ad.sum_op(x + y, dim=(0, 1), keepdim=True)
    assert node.op is ad.sum_op
    assert node.attrs == {"dim": (0, 1), "keepdim": True}
    assert node.dim == (0, 1) and node.keepdim is True
    assert node.inputs[0].inputs == [x, y] and node.inputs[0].op is ad.add
    assert (x + 2).constant == 2 and (x + 2).op is ad.add_by_const
    assert (x * np.float32(2)).constant == 2 and (2 * x).op is ad.mul_by_const
    assert (x / 4).op is ad.div_by_const and (x ** 3).exponent == 3 and (x ** 3).op is ad.power
    assert x.inputs == [] and x.op is ad.placeholder and x.attrs == {}
    assert isinstance(x, ad.Node) and isinstance(ad.placeholder("z"), ad.Variable)


def test_printing_a_node_prints_its_name():
    x, y = variables()
    assert str(x) == repr(x) == f"{x}" == "x"
    assert str((x + y) * 2) == "((x+y)*2)"
    assert str(-x ** 2 / (y @ y - 1)) == "((-(x**2))/((y@y)-1))"
    node = ad.Node([x, y], ad.add, name="total")
    assert str(node) == "total"
    node.name = "sum of both"
    assert str(node) == "sum of both"
    assert run(node, {x: X, y: X}).tolist() == (2 * X).tolist()


def test_names_stay_short_however_often_a_node_is_used():
    y = ad.Variable("y")
    for _ in range(100):
        y = y + y
    assert len(y.name) < 100


def test_attributes_are_not_shared_and_a_missing_one_is_an_attribute_error():
    x, y = variables()
    a, b = x + y, x + y
    a.attrs["mark"] = 1
    assert b.attrs == {} and ad.Variable("z").attrs == {}
    assert a.mark == 1 and not hasattr(b, "mark") and not hasattr(x, "foo")
    with pytest.raises(AttributeError, match="foo"):
        x.foo
    with pytest.raises(AttributeError, match="no shape before it is computed"):
        x.shape
    dims = [0, 1]
    node = ad.sum_op(x, dims)
    dims.append(2)
    assert tuple(node.dim) == (0, 1)


def test_nodes_can_be_copied_and_pickled():
    x, y = variables()
    loss = ad.mean(ad.layernorm(ad.gelu(x @ y), (2,)) * 3 - 1, (0, 1))
    slopes = ad.gradients(loss, [x, y])
    shallow = copy.copy(loss)
    assert shallow.inputs == loss.inputs and shallow.inputs is not loss.inputs
    assert shallow.op is loss.op and shallow.attrs == loss.attrs and shallow.name == loss.name
    expected = ad.Evaluator([loss, *slopes]).run({x: X, y: X})
    for twin in (pickle.loads(pickle.dumps([x, y, loss, *slopes])),
                 copy.deepcopy([x, y, loss, *slopes])):
        a, b, *results = twin
        assert a is not x and isinstance(a, ad.Variable)
        for got, wanted in zip(ad.Evaluator(results).run({a: X, b: X}), expected):
            np.testing.assert_array_equal(got, wanted)


def test_an_array_or_a_numpy_scalar_on_either_side():
    x = ad.Variable("x")
    for node in (np.ones(2) * x, x * np.ones(2), np.float32(1) * x, x * np.float64(1),
                 x * np.array(1.0)):
        assert isinstance(node, ad.Node)
        np.testing.assert_array_equal(run(node, {x: X}), X)
    np.testing.assert_array_equal(run(X @ x, {x: X}), X @ X)
    assert run(np.float64(3) * x, {x: X.astype(np.float32)}).dtype == np.float32


def test_an_array_operand_is_copied():
    x, array = ad.Variable("x"), np.ones(2)
    node = x * array
    array[:] = 5
    np.testing.assert_array_equal(run(node, {x: X}), X)


def test_numpy_functions_build_graph():
    x = ad.Variable("x")
    node = np.sum(np.where(np.greater(x, 2), np.exp(x), np.maximum(x, 1.5)), axis=0)
    expected = np.sum(np.where(X > 2, np.exp(X), np.maximum(X, 1.5)), 0)
    np.testing.assert_allclose(run(node, {x: X}), expected)


@pytest.mark.parametrize("call, error, message", [
    (lambda x: np.modf(x), TypeError, "numpy.modf has no operator here. Write np.trunc"),
    (lambda x: np.add.reduce(x), TypeError, "add: .*plain calls"),
    (lambda x: np.asarray(x), TypeError, "x has no value yet"),
    (lambda x: list(x), TypeError, "not iterable"),
    (lambda x: 1 in x, TypeError, "not"),
    (lambda x: x + "a", TypeError, "nodes, arrays or real numbers; got str"),
    (lambda x: x + None, TypeError, "nodes, arrays or real numbers; got NoneType"),
    (lambda x: x + Tensor(1.0, requires_grad=True), TypeError, "from_tape"),
    (lambda x: ad.mul_by_const(x, x), TypeError, "const_val must be a number, got Variable"),
    (lambda x: ad.sum_op(x, dims=1), TypeError, r"sum_op\(node_A, dim=None, keepdim=False\).*dims"),
    (lambda x: ad.add(x), TypeError, "add: takes add"),
    (lambda x: ad.relu(x, 3), TypeError, "relu: takes"),
    (lambda x: ad.gradients(x, [X]), TypeError, "gradients: .*number 0 is a ndarray"),
    (lambda x: ad.gradients(X, [x]), TypeError, "output must be one Node, got ndarray"),
    (lambda x: ad.gradients([x, x], [x]), TypeError, "output must be one Node, got list"),
    (lambda x: ad.gradients(x, None), TypeError, "gradients: must be given a list of Nodes, got None"),
    (lambda x: ad.Evaluator(None), TypeError, "Evaluator: must be given a list of Nodes, got NoneType"),
    (lambda x: ad.Variable(3), TypeError, "Variable: the name must be a text such as 'x', got 3"),
    (lambda x: ad.Node([1.0], ad.relu), TypeError, "Node of relu: .*number 0 is a float"),
    (lambda x: ad.Node(x, ad.relu), TypeError, "inputs must be a list of Nodes, got x"),
    (lambda x: ad.Node([x], "relu"), TypeError, "Node: op must be an Op, got 'relu'"),
    (lambda x: ad.Node([x], ad.power), ValueError, "power: attrs must have exponent; got {}"),
    (lambda x: ad.Node([x], ad.add_by_const), ValueError, "attrs must have constant"),
    (lambda x: ad.Node([x], ad.transpose, {"dim0": 1}), ValueError, "must have dim1; got {'dim0': 1}"),
    (lambda x: x * np.complex64(1j), TypeError, "real numbers; got complex64"),
    (lambda x: x * np.str_("a"), TypeError, "real numbers; got str_"),
    (lambda x: ad.gradients(x, [x, None]), TypeError, "gradients: .*number 1 is a NoneType"),
    (lambda x: ad.Evaluator([x, 3]), TypeError, "Evaluator: .*number 1 is a int"),
    (lambda x: ad.where(x == 1, x, 0), TypeError, r"where: .* got False.* np.equal\(x, y\)"),
    (lambda x: tape.where(x != 1, x, 0), TypeError, r"where: .* got True"),
    (lambda x: 1 if x > 0 else 2, TypeError, r"bool: \(x>0\) is neither true nor false"),
    (lambda x: x.sum(), AttributeError, r"no field 'sum'.*write tape.sum\(node\)"),
    (lambda x: x.backward(), AttributeError, r"gradients\(output, nodes\)"),
    (lambda x: x.numpy(), AttributeError, "no numpy before it is computed"),
    (lambda x: ad.sofmax, AttributeError, "no 'sofmax'. Did you mean 'softmax'"),
    (lambda x: ad.sigmoids, AttributeError, "no 'sigmoids'. Did you mean 'sigmoid'"),
    (lambda x: ad.MatMulOp, AttributeError, "no 'MatMulOp'. .*no class: write tape.lazy.matmul, or"),
    (lambda x: ad.dropout, AttributeError, "no 'dropout': multiply by a mask that is fed"),
    (lambda x: ad.matmul([x], x), TypeError, "must be one node, got a list with nodes in it"),
    (lambda x: Tensor(1.0) + x, TypeError, "add: a node of a static graph cannot stand beside a ten"),
    (lambda x: ad.softmax(x, axis=1), TypeError, "'axis'. Did you mean 'dim'?"),
    (lambda x: ad.mean(x, 0, keepdims=True), TypeError, "Did you mean 'keepdim'?"),
    (lambda x: ad.softmax(x, dim="a"), TypeError, "softmax: dim must be an integer.*got 'a'"),
    (lambda x: ad.sum_op(x, dim=(0, 1.0)), TypeError, r"sum_op: dim must .*got \(0, 1.0\)"),
    (lambda x: ad.transpose(x, 0, None), TypeError, "transpose: dim1 must be an integer"),
    (lambda x: ad.concat([]), ValueError, "concat: needs at least one node"),
    (lambda x: ad.show(x, style="svg"), ValueError, "style must be 'text' or 'mermaid'")])
def test_what_building_a_graph_refuses(call, error, message):
    with pytest.raises(error, match=message):
        call(ad.Variable("x"))


def test_comparisons_make_nodes():
    x, y = variables()
    feed = {x: X, y: X.T}
    for node, expected in ((x > 2, X > 2), (2 > x, X < 2), (x >= y, X >= X.T), (x <= y, X <= X.T),
                           (np.full(2, 2.0) < x, X > 2), (np.equal(x, y), X == X.T)):
        value = run(node, feed)
        assert value.dtype == bool
        np.testing.assert_array_equal(value, expected)
    assert x and x + y          # as any object is: programs ask whether there is a node
    assert str(ad.where(x > 2, x, y)) == "where((x>2), x, y)" and (x == y) is False and x == x
    twin = pickle.loads(pickle.dumps([x, x > 2]))
    np.testing.assert_array_equal(run(twin[1], {twin[0]: X}), X > 2)


def test_keywords_of_the_original():
    x, y = variables()
    np.testing.assert_array_equal(run(ad.add(node_A=x, node_B=y), {x: X, y: X}), X + X)
    np.testing.assert_array_equal(run(ad.relu(node_A=x), {x: -X}), 0 * X)
    product = ad.matmul(node_A=x, node_B=y, trans_B=True)
    np.testing.assert_array_equal(run(product, {x: X, y: X}), X @ X.T)
    np.testing.assert_array_equal(run(ad.mul_by_const(node_A=x, const_val=2), {x: X}), X * 2)


def test_a_sum_or_difference_with_a_number_has_one_input():
    x = ad.Variable("x")
    for node, expected in ((x - 2, X - 2), (2 - x, 2 - X), (x - np.float32(2), X - 2)):
        assert node.op is ad.add_by_const and len(node.inputs) == 1
        np.testing.assert_array_equal(run(node, {x: X}), expected)
    assert (x - 2).constant == -2
    np.testing.assert_array_equal((x - 2).op.compute(x - 2, [X]), X - 2)


def test_attributes_and_fields_of_the_user_are_left_alone():
    x = ad.Variable("x")
    for node in (ad.relu(x), ad.softmax(x), ad.gelu(x), x + 1):
        node.attrs["tag"] = 1
        assert run(node, {x: X}).shape == (2, 2)
        assert run(ad.gradients(node, [x])[0], {x: X}).shape == (2, 2)
    x.value = 3
    assert copy.copy(x).value == copy.deepcopy(x).value == 3


def test_every_name_of_the_api_explains_itself():
    texts = {name: getattr(ad, name).__doc__ for name in ad.__all__}
    assert not [name for name, text in texts.items() if not text]
    assert texts["relu"].startswith("max(x, 0)")       # of the operator, not of the class of Ops
    assert list(inspect.signature(ad.transpose).parameters) == ["node_A", "dim0", "dim1"]


# --- order ---


def test_topological_sort_puts_inputs_before_users():
    x, y = variables()
    a = x * y
    b = a + x
    c = b * a
    for order in (ad.topological_sort(c), ad.topological_sort([c, a])):
        assert set(order) == {x, y, a, b, c} and len(order) == 5
        for i, node in enumerate(order):
            assert all(parent in order[:i] for parent in node.inputs)
    unrelated = x + 1
    assert unrelated not in ad.topological_sort(c)
    a.inputs[0] = unrelated
    with pytest.raises(ValueError, match="made after it"):
        ad.topological_sort(c)
    d = x + y
    d.inputs[1] = d
    with pytest.raises(ValueError, match="its input .* is itself"):
        ad.Evaluator([d])


def test_a_chain_of_20_000_nodes():
    x = y = ad.Variable("x")
    for _ in range(10_000):              # twenty times as deep as Python recurses
        y = (y + 0.001) * 1.0
    assert len(ad.topological_sort(y)) == 20_001
    (slope,) = ad.gradients(y, [x])
    value, found = ad.Evaluator([y, slope]).run({x: np.array([2.0])})
    assert abs(value - 12) < 1e-6 and found == 1
    with reference_counting_alone():
        del y, slope          # freeing it does not recurse either


def test_b_is_a_plus_a_c_is_b_plus_b():
    a = ad.Variable("a")
    b = a + a
    c = b + b
    assert ad.Evaluator(ad.gradients(c, [a, b, c])).run({a: np.float64(1)}) == [4, 2, 1]


# --- gradients ---


def test_gradients_to_the_third_order():
    x = ad.Variable("x")
    node, derivatives = x ** 4, []
    for _ in range(3):
        (node,) = ad.gradients(node, [x])
        derivatives.append(node)
    values = ad.Evaluator(derivatives).run({x: np.array([2.0])})
    assert [v.item() for v in values] == [32, 48, 48]


def test_a_node_without_influence_gets_zeros_of_its_own_shape():
    x, y = variables()
    slopes = ad.Evaluator(ad.gradients(x * 2, [y, x])).run({x: X, y: np.ones((3, 1), np.float32)})
    assert slopes[0].shape == (3, 1) and slopes[0].dtype == np.float32 and not slopes[0].any()
    assert slopes[1].tolist() == [[2, 2], [2, 2]]


def test_the_gradient_of_a_batch_product_has_the_shape_of_the_matrix():
    x, w = variables("xw")
    batch = np.random.default_rng(0).standard_normal((5, 2, 3))
    for product in (x @ w, ad.matmul(x, w)):
        (slope,) = ad.Evaluator(ad.gradients(product, [w])).run({x: batch, w: np.ones((3, 4))})
        assert slope.shape == (3, 4)
        np.testing.assert_allclose(slope[:, 0], batch.sum((0, 1)))


def test_a_users_own_op_takes_part_in_gradients():
    x = ad.Variable("x")
    op = Counted()
    (slope,) = ad.gradients(op(x) * op(x), [x])
    assert run(slope, {x: np.array(2.0)}) == 6


def test_a_users_own_op_must_return_a_gradient_for_each_input():
    class Wrong(Counted):
        def gradient(self, node, output_grad):
            return []
    x = ad.Variable("x")
    with pytest.raises(TypeError, match="Wrong: gradient must return a list with a Node for each"):
        ad.gradients(Wrong()(x), [x])


def test_a_users_own_op_that_writes_to_what_it_is_given_writes_to_a_copy():
    class Relu(Counted):
        def compute(self, node, values):
            values[0][values[0] < 0] = 0
            return values[0]
    x, fed = ad.Variable("x"), np.array([-1.0, 2.0])
    first, second = ad.Evaluator([Relu()(x), x * 3]).run({x: fed})
    np.testing.assert_array_equal([fed, first, second], [[-1, 2], [0, 2], [-3, 6]])


@pytest.mark.parametrize("kept", [lambda out: out, lambda out: out[:],
                                  lambda out: out.reshape(2, 1)[:, 0]])
def test_results_of_an_op_that_keeps_its_buffer_do_not_change(kept):
    class Double(Counted):
        buffer = np.zeros(2)

        def compute(self, node, values):
            return kept(np.multiply(values[0], 2, out=self.buffer))
    x = ad.Variable("x")
    evaluator = ad.Evaluator([Double()(x)])
    first, = evaluator.run({x: np.ones(2)})
    evaluator.run({x: np.full(2, 7.0)})
    np.testing.assert_array_equal(first, [2, 2])


def test_a_new_result_of_a_users_own_op_is_not_copied():
    made = []

    class Double(Counted):
        def compute(self, node, values):
            out = values[0] * 2
            made.append(out.ctypes.data)
            return out
    x = ad.Variable("x")
    first, = ad.Evaluator([Double()(x)]).run({x: np.ones(2)})
    assert first.ctypes.data == made[0]


def test_the_same_node_twice_as_an_input():
    x = ad.Variable("x")
    for node in (ad.matmul_softmax(x, x), ad.matmul(x, x, trans_B=True), ad.concat([x, x]), x @ x):
        (slope,) = ad.gradients(node * node, [x])
        step = 1e-6 * np.eye(4)[1].reshape(2, 2)
        ends = [run(node * node, {x: X + s * step}).sum() for s in (1, -1)]
        np.testing.assert_allclose(run(slope, {x: X})[0, 1], (ends[0] - ends[1]) / 2e-6, rtol=1e-5)


def test_a_fed_constant_changes_no_gradients_shape():
    x = ad.Variable("x")
    for node in (2.0 / x, ad.mul(x, 2.0), ad.add(x, 2.0)):
        (number,) = [parent for parent in node.inputs if parent is not x]
        (slope,) = ad.Evaluator(ad.gradients(node, [x])).run(
            {x: np.array(3.0, np.float32), number: np.arange(1.0, 4.0)})
        assert slope.shape == () and slope.dtype == np.float32


def test_the_gradient_of_pieces_of_several_dtypes():
    x, y = variables()
    node = ad.sum_op(ad.concat([x, y]) ** 2, 0)
    found = ad.Evaluator(ad.gradients(node, [x, y])).run(
        {x: np.ones(2, np.float32), y: np.array([3, 4])})
    assert found[0].tolist() == [2, 2] and found[0].dtype == np.float32 and found[1].tolist() == [6, 8]


def test_targets_have_a_gradient_of_zeros():
    x, y = variables()
    loss = ad.cross_entropy(x, y)
    slopes = ad.gradients(loss, [y, x])
    (found, _), (by_op,) = ad.Evaluator(slopes).run({x: X, y: np.array([0, 1])}), ad.Evaluator(
        [loss.op.gradient(loss, ad.ones_like(loss))[1]]).run({x: X, y: np.array([0, 1])})
    assert found.tolist() == by_op.tolist() == [0, 0]


# --- pictures ---


def test_show_as_text():
    x, w = variables("xW")
    w.name = "W"
    assert ad.show(ad.mean(ad.relu(x @ w), dim=(0, 1))) == """\
node  operator     inputs  attributes                 name
   0  placeholder                                     x
   1  placeholder                                     W
   2  matmul       0, 1                               (x@W)
   3  relu         2                                  relu((x@W))
   4  mean         3       dim=(0, 1), keepdim=False  mean(relu((x@W)))
5 nodes"""


def test_show_as_mermaid():
    x = ad.Variable('a "quoted" <x>')
    assert ad.show(ad.relu(x) * np.ones(3), style="mermaid") == """\
flowchart TD
    n0(["a #quot;quoted#quot; #lt;x#gt;"])
    n1["relu"]
    n2["array(3,)"]
    n3["mul"]
    n0 --> n1
    n1 --> n3
    n2 --> n3"""


def test_show_has_a_limit():
    x = y = ad.Variable("x")
    for _ in range(1000):
        y = y + x
    text = ad.show(y, limit=5)
    assert len(text.splitlines()) == 7 and text.endswith("1001 nodes, the first 996 not shown")
    assert ad.show(y, limit=0).endswith("1001 nodes, the first 1001 not shown")
    mermaid = ad.show(y, style="mermaid", limit=5)
    assert "996 earlier nodes" in mermaid and len(mermaid.splitlines()) < 20
