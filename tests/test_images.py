"""The reader for MNIST's format, the digits, and the Vision Transformer."""

import gzip
import sys

import numpy as np
import pytest

import nn
import tape
from nn.data.batches import shuffled_batches
from nn.data.images import load_digits, load_idx, read_idx
from nn.models.vision import predict
from nn.layers.patch_embedding import nearest_patch_size
from tests.checks import idx_bytes, run_python

RNG = np.random.default_rng(2)


@pytest.fixture
def folder(images_folder):
    return images_folder


def test_a_data_set_is_read_gzipped_or_not(folder):
    data = load_idx(folder)
    assert data.train_images.shape == (90, 8, 6) and data.train_images.dtype == np.float32
    assert data.test_images.shape == (30, 8, 6) and data.classes == 3
    assert data.train_labels.dtype == np.int64 and data.train_labels[:4].tolist() == [0, 1, 2, 0]
    assert 0 <= data.train_images.min() and data.train_images.max() <= 1
    even = data.standardised()
    assert abs(even.train_images.mean()) < 1e-5 and abs(even.train_images.std() - 1) < 1e-5
    assert even.test_images.dtype == np.float32


def test_the_other_spelling_of_the_names(folder):
    (folder / "train-images-idx3-ubyte").rename(folder / "train-images.idx3-ubyte")
    assert len(load_idx(folder).train_images) == 90


def write(name, data):
    return lambda folder: (folder / name).write_bytes(data)


ARRAY = np.zeros((90, 8, 6), np.uint8)
HUGE = b"\0\0\x08\x03" + np.array([90_000, 1000, 100], ">u4").tobytes() + bytes(1000)


@pytest.mark.parametrize("spoil, error, message", [
    (write("train-images-idx3-ubyte", b""), ValueError, "must begin with 00 00 08, got nothing"),
    (write("train-images-idx3-ubyte", b"\x89PNG...."), ValueError, "got 89 50 4e"),
    (write("train-images-idx3-ubyte", b"\0\0\x0d\x03" + bytes(12)), ValueError, "got 00 00 0d"),
    (write("train-images-idx3-ubyte", b"\0\0\x08\x03\0\0"), ValueError, "not whole"),
    (write("train-images-idx3-ubyte", idx_bytes(ARRAY)[:-1]), ValueError,
     r"not whole: its header promises \(90, 8, 6\), that is 16 \+ 4,320 bytes, and it has 4,335"),
    (write("train-images-idx3-ubyte", idx_bytes(ARRAY) + b"x"), ValueError, "not whole"),
    (write("train-images-idx3-ubyte", idx_bytes(ARRAY[0])), ValueError, r"3 axes \(images\), got 2"),
    (write("t10k-labels-idx1-ubyte.gz", idx_bytes(ARRAY)), ValueError, r"1 axes \(labels\), got 3"),
    (write("train-images-idx3-ubyte", idx_bytes(ARRAY[1:])), ValueError, "must be one for each"),
    (write("train-images-idx3-ubyte", idx_bytes(ARRAY[:, 1:])), ValueError, "must be of one size"),
    (write("t10k-labels-idx1-ubyte.gz", idx_bytes(np.full(30, 7, np.uint8))), ValueError,
     "the label 7 occurs in the test alone"),
    (write("t10k-labels-idx1-ubyte.gz", gzip.compress(idx_bytes(ARRAY[0, 0]))[:-4]), ValueError,
     "damaged gzip"),
    (write("t10k-labels-idx1-ubyte.gz", b"\x1f\x8b\x08rubbish"), ValueError, "damaged gzip"),
    (write("train-images-idx3-ubyte", gzip.compress(idx_bytes(ARRAY)[:-1])), ValueError,
     r"promises \(90, 8, 6\), that is 16 \+ 4,320 bytes, and it has 4,335"),
    (write("train-images-idx3-ubyte", gzip.compress(idx_bytes(ARRAY) + b"x" * 99)), ValueError,
     r"16 \+ 4,320 bytes, and it has more than 4,336"),
    (write("train-images-idx3-ubyte", gzip.compress(HUGE)), ValueError,
     r"promises \(90000, 1000, 100\), that is 16 \+ 9,000,000,000 bytes, and it has \d+ packed"),
    (write("train-images-idx3-ubyte", HUGE), ValueError, "9,000,000,000 bytes, and it has 1,016$"),
    (lambda folder: (folder / "train-images-idx3-ubyte").unlink(), FileNotFoundError,
     r"no file train-images-idx3-ubyte \(or train-images-idx3-ubyte.gz\)"),
    (lambda folder: [p.unlink() for p in folder.iterdir()], FileNotFoundError, "no file")])
def test_a_damaged_data_set_is_refused_by_name(folder, spoil, error, message):
    spoil(folder)
    with pytest.raises(error, match=message) as caught:
        load_idx(folder)
    assert str(folder) in str(caught.value)


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        load_idx(tmp_path / "nowhere")


def test_read_idx_gives_the_bytes(tmp_path):
    array = RNG.integers(0, 256, (2, 3, 4)).astype(np.uint8)
    (tmp_path / "x").write_bytes(idx_bytes(array))
    np.testing.assert_array_equal(read_idx(tmp_path / "x", 3), array)


@pytest.mark.parametrize("promised", [(90, 8, 6), (4000, 1000, 1000)])
def test_a_gzip_bomb_takes_little_memory(promised, tmp_path):
    """4 MB that unpack to 4 GB, with a header that admits it or does not."""
    pytest.importorskip("resource")
    head = b"\0\0\x08\x03" + np.array(promised, ">u4").tobytes()
    with open(tmp_path / "x.gz", "wb") as file:
        file.write(gzip.compress(head, 1))
        zeros = gzip.compress(bytes(2 ** 24))
        for _ in range(250):
            file.write(zeros)
    code = ("import resource, sys; from nn.data.images import read_idx\n"
            "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
            "try: read_idx(sys.argv[1], 3)\n"
            "except ValueError as error: assert 'not whole' in str(error)\n"
            "else: sys.exit('it was read')\n"
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)")
    done = run_python("-c", code, str(tmp_path / "x.gz"))
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 50_000             # kB


@pytest.mark.parametrize("shape, wanted, found", [
    ((28, 28), 7, 7), ((30, 30), 7, 6), ((8, 6), 2, 2), ((22, 22), 5, 11), ((31, 31), 7, 31),
    ((32, 24), 8, 8), ((6, 6), 1, 1), ((28, 30), 7, 2)])
def test_the_patch_size_that_is_nearest(shape, wanted, found):
    assert nearest_patch_size(shape, wanted) == found


def test_the_digits_without_scikit_learn(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ImportError, match=r'pip install -e "\.\[images\]"'):
        load_digits()


def test_the_digits():
    pytest.importorskip("sklearn")
    data = load_digits(seed=0)
    assert data.train_images.shape == (1438, 8, 8) and data.test_images.shape == (359, 8, 8)
    assert data.classes == 10 and data.train_images.max() == 1.0
    again, other = load_digits(seed=0), load_digits(seed=1)
    np.testing.assert_array_equal(data.test_images, again.test_images)
    assert not np.array_equal(data.test_labels, other.test_labels)
    rows = {image.tobytes() for image in data.test_images}
    assert sum(image.tobytes() in rows for image in data.train_images) <= 2     # twins in the data


def test_shuffled_batches_are_a_pure_function_of_seed_and_epoch():
    first = list(shuffled_batches(10, 4, seed=0, epoch=1))
    assert [len(b) for b in first] == [4, 4, 2]
    assert sorted(np.concatenate(first)) == list(range(10))
    again, later = shuffled_batches(10, 4, 0, 1), shuffled_batches(10, 4, 0, 2)
    np.testing.assert_array_equal(np.concatenate(first), np.concatenate(list(again)))
    assert not np.array_equal(np.concatenate(first), np.concatenate(list(later)))


# --- the Vision Transformer ---


def test_patches_are_squares_row_by_row():
    images = np.arange(2 * 4 * 6).reshape(2, 4, 6).astype(np.float32)
    layer = nn.PatchEmbedding((4, 6), 2, 4, rng=0)
    layer.linear.weight.data = np.eye(4)
    out = layer(images).data
    assert layer.count == 6 and out.shape == (2, 6, 4)
    for i in range(2):
        for j in range(3):
            square = images[1, 2 * i:2 * i + 2, 2 * j:2 * j + 2]
            np.testing.assert_array_equal(out[1, 3 * i + j], square.reshape(-1))


@pytest.mark.parametrize("call, message", [
    (lambda: nn.PatchEmbedding((28, 28), 5, 8),
     "patch_size must divide the sides .* got 5 and .*; the nearest that does is 4"),
    (lambda: nn.PatchEmbedding((4, 4), 2, 8)(np.zeros((1, 4, 5))), r"must have shape \(B, 4, 4\), got"),
    (lambda: nn.VisionTransformer(nn.VisionConfig((4, 4), 2, 3, n_head=3, n_embd=8)),
     "VisionConfig: n_head must divide n_embd, got 3 and 8"),
    (lambda: nn.VisionConfig((8, 8), 0, 10), "patch_size must be a positive integer, got 0"),
    (lambda: nn.VisionConfig((8, 8), 2, 0), "classes must be a positive integer"),
    (lambda: nn.VisionConfig(8, 2, 10), r"image_shape must be \(height, width\), got 8"),
    (lambda: nn.PatchEmbedding((4, 4), 2, 8)([[1.0]]), r"must have shape \(B, 4, 4\), got \(1, 1\)")])
def test_what_the_vision_transformer_refuses(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_the_vision_transformer_learns_what_needs_positions():
    """Which corner of the image is bright: a matter of where, not of what."""
    labels = RNG.integers(0, 4, 200)
    images = RNG.standard_normal((200, 4, 4)).astype(np.float32) * 0.3
    images[np.arange(200), labels // 2 * 3, labels % 2 * 3] += 3
    model = nn.VisionTransformer(nn.VisionConfig((4, 4), 2, 4, n_layer=1, n_head=2, n_embd=16), rng=0)
    optimizer = nn.AdamW(model.parameters(), lr=1e-2)
    for _ in range(60):
        logits, loss = model(images[:150], labels[:150])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert logits.shape == (150, 4) and model(images)[1] is None
    predicted = predict(model, images[150:], batch_size=20)
    assert predicted.shape == (50,) and (predicted == labels[150:]).mean() > 0.9


def test_every_parameter_of_the_vision_transformer_gets_its_gradient():
    model = nn.VisionTransformer(nn.VisionConfig((4, 4), 2, 3, n_layer=1, n_head=2, n_embd=4), rng=0)
    images, labels = RNG.standard_normal((2, 4, 4)), np.array([0, 2])
    names = dict(model.named_parameters())
    _, loss = model(images, labels)
    loss.backward()
    for name, parameter in names.items():
        place = np.unravel_index(np.argmax(np.abs(parameter.grad)), parameter.shape)
        ends, original = [], parameter.data
        for step in (1e-3, -1e-3):
            moved = original.copy()
            moved[place] += step
            parameter.data = moved
            with tape.no_grad():
                ends.append(model(images, labels)[1].item())
        parameter.data = original
        difference = (ends[0] - ends[1]) / 2e-3
        assert parameter.grad[place] == pytest.approx(difference, rel=0.05, abs=2e-5), name
