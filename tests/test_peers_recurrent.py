"""Recurrent layers against PyTorch's, with the same weights, in float64.

`pip install -e ".[peers]"` installs PyTorch; without it these tests are skipped.
"""

import numpy as np
import pytest

import nn
from tests.checks import in_float64, leaf, peer

torch = peer("torch")


def named_as_pytorch(ours, array_of):
    """What `array_of` gives of each parameter, by the names and in the shapes of PyTorch.

    Its second biases are zero, but for that of a GRU's candidate.
    """
    named = {}
    for i, layer in enumerate(ours.layers):
        bias = array_of(layer.input.bias)
        second = np.zeros_like(bias)
        if isinstance(ours, nn.GRU):
            second[2 * ours.n_hidden:] = array_of(layer.candidate_bias)
        named |= {f"weight_ih_l{i}": array_of(layer.input.weight).T, f"bias_ih_l{i}": bias,
                  f"weight_hh_l{i}": array_of(layer.hidden.weight).T, f"bias_hh_l{i}": second}
    return named


@pytest.mark.parametrize("n_layer", [1, 3])
@pytest.mark.parametrize("name", ["RNN", "LSTM", "GRU"])
def test_outputs_state_and_gradients_are_pytorchs(name, n_layer):
    rng = np.random.default_rng(2)
    ours = in_float64(getattr(nn, name)(4, 5, n_layer, rng=0))
    for parameter in ours.parameters():
        parameter.data = parameter.data + 0.3 * rng.standard_normal(parameter.shape)
    theirs = getattr(torch.nn, name)(4, 5, n_layer, batch_first=True).double()
    theirs.load_state_dict({key: torch.tensor(array) for key, array in named_as_pytorch(
        ours, lambda parameter: parameter.data).items()})
    inputs = [rng.standard_normal((3, 7, 4)), *rng.standard_normal((len(ours.parts), n_layer, 3, 5))]
    (x, *state), (wanted_x, *wanted_state) = [leaf(a) for a in inputs], [
        torch.tensor(a, requires_grad=True) for a in inputs]
    out, after = ours(x, tuple(state))
    wanted, wanted_after = theirs(wanted_x, tuple(wanted_state) if name == "LSTM" else wanted_state[0])
    wanted_after = wanted_after if name == "LSTM" else (wanted_after,)
    u = rng.standard_normal(out.shape)
    ((out * u).sum() + sum((part * part).sum() for part in after)).backward()
    ((wanted * torch.tensor(u)).sum() + sum((part * part).sum() for part in wanted_after)).backward()
    for found, expected in zip((out, *after), (wanted, *wanted_after), strict=True):
        np.testing.assert_allclose(found.data, expected.detach(), rtol=1e-11, atol=1e-12)
    for found, expected in zip((x, *state), (wanted_x, *wanted_state), strict=True):
        np.testing.assert_allclose(found.grad, expected.grad, rtol=1e-9, atol=1e-11)
    gradients = named_as_pytorch(ours, lambda parameter: parameter.grad)
    for key, parameter in theirs.named_parameters():
        shown = slice(2 * 5, None) if "bias_hh" in key and name == "GRU" else slice(None)
        if "bias_hh" not in key or name == "GRU":
            np.testing.assert_allclose(gradients[key][shown], parameter.grad[shown], rtol=1e-9,
                                       atol=1e-11, err_msg=key)
