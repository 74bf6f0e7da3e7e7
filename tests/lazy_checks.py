"""What the tests of the static graph share."""

import numpy as np

import tape.lazy as ad

X = np.array([[1.0, 2.0], [3.0, 4.0]])


def variables(names="xy"):
    return [ad.Variable(name) for name in names]


def run(node, feed):
    (value,) = ad.Evaluator([node]).run(feed)
    return value


def assert_eager(evaluator, variables, inputs, loss, parameters):
    """The loss and the gradient of each parameter are those of the eager run, to the last bit.

    `evaluator` gives the loss and the gradients; `variables`, `inputs` and `parameters` are by name,
    and `loss` and the gradients in `parameters` are from the eager run.
    """
    arrays = {**inputs, **{name: p.data for name, p in parameters.items()}}
    value, *found = evaluator.run({variables[name]: array for name, array in arrays.items()})
    assert value == loss.item()
    for (name, parameter), gradient in zip(parameters.items(), found, strict=True):
        np.testing.assert_array_equal(gradient, parameter.grad, err_msg=name)


class Counted(ad.Op):
    """A user's own Op: x + 1, and a list of the values that it was called with."""

    def __init__(self):
        self.calls = []

    def __call__(self, node_A):
        return ad.Node([node_A], self)

    def compute(self, node, input_values):
        self.calls.append(input_values[0])
        return input_values[0] + 1

    def gradient(self, node, output_grad):
        return [output_grad]
