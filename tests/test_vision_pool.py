"""The two ways from patches to one vector: by the paper's formulas, and in files."""

import json
from dataclasses import replace

import numpy as np
import pytest

import nn
import train
from tape import Tensor, gradcheck
from tests.checkpoint_files import pack, parts
from tests.checks import in_float64, refused, replaced_parameters

CONFIG = nn.VisionConfig((4, 4), 2, 3, n_layer=1, n_head=2, n_embd=4, mean=0.5, std=0.5, pool="class")
IMAGES = np.random.default_rng(1).random((2, 4, 4))
LABELS = np.array([2, 0])


def model_of(pool, seed=0):
    """In float64, with all parameters drawn, so that none is at a special value."""
    model = in_float64(nn.VisionTransformer(replace(CONFIG, pool=pool), rng=0))
    rng = np.random.default_rng(seed)
    for p in model.parameters():
        p.data = rng.standard_normal(p.shape) * 0.5
    return model


def norm(x, w, name):
    centred = x - x.mean(-1, keepdims=True)
    return (centred / np.sqrt((centred ** 2).mean(-1, keepdims=True) + 1e-5) * w[f"{name}.weight"]
            + w[f"{name}.bias"])


def linear(x, w, name):
    return x @ w[f"{name}.weight"] + w[f"{name}.bias"]


def attention(x, w, name, heads=2):
    q, k, v = (linear(x, w, f"{name}.{part}") for part in ("query", "key", "value"))
    mixed = []
    for h in np.split(np.arange(x.shape[1]), heads):
        scores = np.exp(q[:, h] @ k[:, h].T / np.sqrt(len(h)))
        mixed.append(scores / scores.sum(1, keepdims=True) @ v[:, h])
    return linear(np.concatenate(mixed, 1), w, f"{name}.output")


def by_the_paper(image, w, pool):
    """Equations 1 to 4 for one image, with patches cut one by one."""
    image = (image - 0.5) / 0.5
    patches = [image[i:i + 2, j:j + 2].reshape(-1) for i in (0, 2) for j in (0, 2)]
    rows = [linear(patch, w, "patches.linear") for patch in patches]
    z = np.array([w["class_token"], *rows] if pool == "class" else rows) + w["positions.weight"]
    z = z + attention(norm(z, w, "blocks.0.norm1"), w, "blocks.0.attention")
    u = linear(norm(z, w, "blocks.0.norm2"), w, "blocks.0.feed_forward.hidden")
    u = 0.5 * u * (1 + np.tanh(np.sqrt(2 / np.pi) * (u + 0.044715 * u ** 3)))
    z = norm(z + linear(u, w, "blocks.0.feed_forward.output"), w, "norm")
    return linear(z[0] if pool == "class" else z.mean(0), w, "head")


@pytest.mark.parametrize("pool", ["class", "mean"])
def test_the_logits_are_those_of_the_papers_equations(pool):
    model = model_of(pool)
    w = {name: p.data for name, p in model.named_parameters()}
    wanted = [by_the_paper(image, w, pool) for image in IMAGES]
    np.testing.assert_allclose(model(IMAGES)[0].data, wanted, rtol=1e-10)
    np.testing.assert_array_equal(nn.predict(model, IMAGES), np.argmax(wanted, axis=1))


@pytest.mark.parametrize("pool, names", [("class", ()), ("mean", ("positions.weight", "norm.weight"))])
def test_gradients_by_differences(pool, names):
    """Of all parameters for one pool, and for the other of those before and behind the blocks."""
    model = model_of(pool)
    replace_in = replaced_parameters(model)
    whole = {name: p.data for name, p in model.named_parameters()}
    names = names or tuple(whole)

    def loss(*parameters):
        return replace_in({**whole, **dict(zip(names, parameters))}.values())(IMAGES, LABELS)[1]
    assert gradcheck(loss, [whole[name] for name in names], order=2)


def test_parameters_and_their_first_values():
    model = nn.VisionTransformer(CONFIG, rng=0)
    assert model.class_token.data.tolist() == [0, 0, 0, 0] and model.positions.weight.shape == (5, 4)
    plain = nn.VisionTransformer(replace(CONFIG, pool="mean"), rng=0)
    assert plain.class_token is None and plain.positions.weight.shape == (4, 4)
    assert nn.VisionConfig((4, 4), 2, 3).pool == "mean"
    logits, loss = model(IMAGES.astype(np.float32), LABELS)
    loss.backward()
    assert logits.dtype == np.float32
    assert all(p.grad.dtype == np.float32 and p.grad.any() for name, p in model.named_parameters()
               if not name.endswith("key.bias"))                 # which moves all scores of a row alike
    with pytest.raises(ValueError, match=r"pool must be one of \['class', 'mean'\], got 'max'"):
        replace(CONFIG, pool="max")


def test_a_class_token_travels_in_a_checkpoint_and_older_files_have_the_mean(tmp_path):
    model = nn.VisionTransformer(CONFIG, rng=0)
    model.class_token.data += 1
    found = nn.load_checkpoint(nn.save_checkpoint(tmp_path / "a.npz", model)).model
    assert found.config == CONFIG
    np.testing.assert_array_equal(found(IMAGES)[0].data, model(IMAGES)[0].data)
    plain = nn.VisionTransformer(replace(CONFIG, pool="mean"), rng=0)
    header, weights = parts(plain)
    assert header["config"].pop("pool") == "mean" and "pool" not in json.dumps(header)
    (tmp_path / "old.npz").write_bytes(pack(header, weights))
    old = nn.load_checkpoint(tmp_path / "old.npz").model
    np.testing.assert_array_equal(old(Tensor(IMAGES))[0].data, plain(Tensor(IMAGES))[0].data)


def test_a_pool_that_does_not_fit_is_refused(folder, capsys):
    assert "--pool: invalid choice: 'max'" in refused(capsys, train.main, "images", "--pool", "max")
    assert "--pool is not for --engine static" in refused(
        capsys, train.main, "images", "--engine", "static", "--pool", "class")
