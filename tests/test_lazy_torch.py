"""Programs for the static graph that hold their numbers in PyTorch's tensors."""

import subprocess
import sys

import numpy as np
import pytest

import tape.lazy as ad
from tests.checks import ROOT
from tests.test_lazy_operators import API, EXPRESSIONS

torch = pytest.importorskip("torch")
X = torch.tensor([[1.0, -2.0], [3.0, 4.0]])


class Swish(ad.Op):
    """An operator as a student writes it, with PyTorch's functions."""

    def __call__(self, node_A):
        return ad.Node([node_A], self, name=f"Swish({node_A.name})")

    def compute(self, node, input_values):
        assert isinstance(input_values[0], torch.Tensor)
        return input_values[0] * torch.sigmoid(input_values[0])

    def gradient(self, node, output_grad):
        x = node.inputs[0]
        s = 1 / (1 + ad.exp(-x))
        return [output_grad * (s + x * s * (1 - s))]


class Same(ad.Op):
    def __call__(self, node_A):
        return ad.Node([node_A], self)

    def compute(self, node, input_values):
        return input_values[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.int64])
def test_tensors_fed_are_tensors_returned(dtype):
    x, y = ad.Variable("x"), ad.Variable("y")
    feed = {x: X.to(dtype), y: X.to(dtype) + 1}
    out = ad.sum_op(ad.matmul(x, y) * 2, dim=1)
    results = ad.Evaluator([out, *ad.gradients(out, [x, y])]).run(feed)
    assert [type(r) for r in results] == [torch.Tensor] * 3
    assert all(r.dtype == dtype and r.device == X.device and not r.requires_grad for r in results)
    assert torch.equal(results[0], ((X @ (X + 1)) * 2).sum(dim=1).to(dtype))


@pytest.mark.parametrize("name", sorted(API.keys() - EXPRESSIONS))
def test_an_operator_on_tensors_is_that_on_arrays(name):
    """By the Evaluator and by `op.compute`, with gradients, to the last bit."""
    arrays = API[name][2][0]
    variables = [ad.Variable(letter) for letter in "xy"[:len(arrays)]]
    out = API[name][0](*variables)
    evaluator = ad.Evaluator([out, *ad.gradients(out, variables)])
    expected = evaluator.run(dict(zip(variables, arrays)))
    found = evaluator.run({v: torch.from_numpy(a.copy()) for v, a in zip(variables, arrays)})
    for a, b in zip(found, expected, strict=True):
        assert isinstance(a, torch.Tensor) and np.array_equal(a.numpy(), b)
    values = ad.Evaluator(out.inputs).run({v: torch.from_numpy(a) for v, a in zip(variables, arrays)})
    given = [node.attrs["value"] if node.op.name == "constant" else v
             for node, v in zip(out.inputs, values)]
    computed = out.op.compute(out, given)
    assert isinstance(computed, torch.Tensor)
    np.testing.assert_array_equal(computed.numpy(), expected[0])


def test_results_are_writable_and_own_their_memory():
    x, view, same = ad.Variable("x"), ad.Variable("view"), Same()
    nodes = [x, same(x), ad.transpose(x, 0, 1), ad.broadcast(x, (2, 2), (3, 2, 2)), same(view),
             ad.ones_like(x), ad.sum_op(x, dim=(0, 1))]
    fed = X.clone()
    results = ad.Evaluator(nodes).run({x: fed, view: fed[0]})
    results += [n.op.compute(n, [fed]) for n in nodes[2:4]]
    for result in results:
        result += 1
    assert torch.equal(fed, X)
    assert torch.equal(results[0], X + 1) and torch.equal(results[1], X + 1)
    assert torch.equal(results[4], X[0] + 1)
    fed -= 1                                    # a program's update in place
    assert torch.equal(results[2], X.T + 1)


def test_an_operator_of_the_programs_own_is_given_tensors():
    x = ad.Variable("x")
    out = Swish()(x * 2)
    value, slope = ad.Evaluator([out, *ad.gradients(out, [x])]).run({x: X})
    leaf = X.clone().requires_grad_()
    expected = torch.nn.functional.silu(leaf * 2)
    expected.sum().backward()
    torch.testing.assert_close(value, expected.detach())
    torch.testing.assert_close(slope, leaf.grad)


@pytest.mark.filterwarnings("ignore:The given NumPy array is not writable")
def test_an_operator_may_answer_arrays_with_a_tensor():
    class Doubled(Same):
        def compute(self, node, input_values):
            return torch.from_numpy(input_values[0]) * 2
    x = ad.Variable("x")
    (value,) = ad.Evaluator([Doubled()(x) + 1]).run({x: X.numpy()})
    assert type(value) is np.ndarray
    np.testing.assert_array_equal(value, X.numpy() * 2 + 1)


def test_tensors_beside_arrays_and_numbers():
    x, y, z = ad.Variable("x"), ad.Variable("y"), ad.Variable("z")
    (value,) = ad.Evaluator([x * y + z]).run({x: X, y: np.ones((2, 2), np.float32), z: 0.5})
    assert isinstance(value, torch.Tensor) and value.dtype == torch.float32
    assert torch.equal(value, X + 0.5)


def test_tensors_as_operands_of_nodes():
    x = ad.Variable("x")
    root = torch.sqrt(torch.tensor(4, dtype=torch.float64))        # a number is weak, in PyTorch too
    for node, expected in ((x * X, X * X), (X * x, X * X), (x / root, X / 2), (root - x, 2 - X),
                           (ad.div_by_const(x, root), X / 2), (x ** torch.tensor(2), X ** 2),
                           (ad.matmul(x, X), X @ X), (X @ x, X @ X)):
        (value,) = ad.Evaluator([node]).run({x: X})
        assert value.dtype == torch.float32
        assert torch.equal(value, expected)


def test_a_constant_does_not_change_with_the_tensor_it_was_made_of():
    x, mask = ad.Variable("x"), torch.ones(2, 2)
    node = x * mask
    mask.zero_()
    assert torch.equal(ad.Evaluator([node]).run({x: X})[0], X)


@pytest.mark.parametrize("value, message", [
    (X.clone().requires_grad_(), "run: x: a torch.Tensor .* must not require a gradient"),
    (X.to(torch.bfloat16), r"run: x: a torch.Tensor must .*got torch.bfloat16, .*tensor.float\(\)"),
    (X.to_sparse(), "run: x: a torch.Tensor must be dense"),
    (X.to("meta"), "on the CPU .*on meta"),
    (X.to(torch.complex64), "real numbers, got an array of complex64")])
def test_what_is_refused(value, message):
    x = ad.Variable("x")
    with pytest.raises(TypeError, match=message):
        ad.Evaluator([x + 1]).run({x: value})


def test_under_no_grad_a_parameter_is_numbers():
    x = ad.Variable("x")
    with torch.no_grad():
        (value,) = ad.Evaluator([x * 1.0]).run({x: torch.nn.Parameter(X)})
    assert torch.equal(value, X) and not value.requires_grad


def test_a_tensor_that_requires_a_gradient_is_no_operand():
    with pytest.raises(TypeError, match="must not require a gradient"):
        ad.Variable("x") * X.clone().requires_grad_()


def test_pytorch_is_not_imported_for_programs_without_it():
    code = ("import sys, numpy as np, tape.lazy as ad; x = ad.Variable('x'); "
            "print(ad.Evaluator([x + 1]).run({x: np.ones(1)}), 'torch' in sys.modules)")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "[array([2.])] False\n", done.stderr
