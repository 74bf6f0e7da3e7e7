"""train.py with --engine static, and train.py images, run as a user runs them."""

import itertools
import re
import sys
from pathlib import Path

import numpy as np
import pytest

import generate
import nn
import train
from nn.data.images import ImageData, load_idx
from nn.jobs import images
from nn.jobs.job import INIT
from nn.models import vision
from nn.models.static import vision as static_vision
from nn.training import engines
from tests.checks import Recorder, idx_bytes, refused

pytestmark = pytest.mark.usefixtures("folder")


# --- the ten sentences ---


@pytest.mark.parametrize("seed", range(3))
def test_the_static_engine_memorises_ten_of_ten(seed, folder, capsys):
    assert train.main(["--engine", "static", "--seed", str(seed)]) == 0
    assert "memorised 10/10" in capsys.readouterr().out
    assert nn.load_checkpoint("checkpoints/latest/last.npz").info["step"] == 500


def test_both_engines_print_the_same_losses(folder, capsys):
    curves = []
    for engine in ("tape", "static"):
        train.main(["sentences", "--engine", engine, "--steps", "200", "--log-interval", "20"])
        curves.append([float(x) for x in re.findall(r"loss +(\d+\.\d+)", capsys.readouterr().out)])
    assert len(curves[0]) == 10
    np.testing.assert_allclose(curves[0], curves[1], rtol=1e-3, atol=1e-4)


def test_the_flags_of_the_model_reach_the_static_one(folder, capsys):
    train.main(["--engine", "static", "--steps", "2", "--n-layer", "2", "--n-head", "2",
                "--n-embd", "8", "--lr", "0.01", "--seed", "4"])
    model = nn.load_checkpoint("checkpoints/latest/last.npz").model
    assert (model.config.n_layer, model.config.n_head, model.config.n_embd) == (2, 2, 8)
    twin = nn.GPT(model.config, rng=np.random.default_rng((4, INIT)))
    difference = model.head.weight.data - twin.head.weight.data
    assert 0 < np.abs(difference).max() < 0.05


def test_a_static_run_that_diverges_stops_with_a_sentence(folder, capsys):
    err = refused(capsys, train.main, "--engine", "static", "--lr", "1e30")
    assert "the loss is nan at step 2" in err and "--lr" in err


# --- images ---


def accuracy(out):
    return float(re.search(r"test images right: (\d+\.\d+)%", out).group(1))


def test_images_of_a_folder_by_both_engines(images_folder, capsys):
    data = ["--data", str(images_folder), "--n-embd", "16", "--batch-size", "10", "--epochs", "20"]
    assert train.main(["images", *data, "--lr", "0.005"]) == 0
    out = capsys.readouterr().out
    assert "an image is a sequence of 12 patches; engine tape\n90 images of 8 x 6 pixels" in out
    assert "pixels to train on, 30 to test on\n" in out
    assert "ln 3 = 1.099 nats,\nand an accuracy of 33%" in out and accuracy(out) > 90
    assert len(re.findall(r"^epoch +\d+/20   loss", out, re.MULTILINE)) == 10
    assert re.search(r"saved checkpoints/images-\d+-\d+/last.npz", out)
    found = nn.load_checkpoint("checkpoints/latest/last.npz")
    whole = load_idx(images_folder)
    right = nn.predict(found.model, whole.test_images) == whole.test_labels
    assert f"{right.mean():.2%}" in out and found.info["epoch"] == 20
    assert "VisionTransformer, which continues no text: it classifies images. In Python" in refused(
        capsys, generate.main, "--checkpoint", "checkpoints/latest/last.npz")
    assert train.main(["images", "--engine", "static", *data]) == 0
    out = capsys.readouterr().out
    assert "an image is a sequence of 8 rows; engine static" in out and accuracy(out) > 90
    assert re.search(r"right: .*By label:\n  0: \d+%  1: \d+%  2: \d+%\n", out)


@pytest.mark.parametrize("engine", ["tape", "static"])
def test_between_two_lines_a_terminal_shows_how_far_it_is(engine, images_folder, monkeypatch, capsys):
    flags = ["images", "--engine", engine, "--data", str(images_folder), "--epochs", "2",
             "--batch-size", "30", "--n-embd", "4"]
    seconds = itertools.count(0, 2)
    monkeypatch.setattr("nn.training.progress.time.perf_counter", lambda: next(seconds))
    train.main(flags)
    assert "\r" not in "".join(capsys.readouterr())
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setitem(sys.modules, "tqdm", None)
    train.main(flags)
    out, err = capsys.readouterr()
    shown = re.findall(r"epoch (\d\.\d\d)/2   loss  \d\.\d{4}   \d+:\d\d left *\r", err)
    assert shown == ["0.33", "0.67", "1.00", "1.33", "1.67", "2.00"] and "\r" not in out


def test_flags_reach_the_vision_transformer(images_folder, monkeypatch, capsys):
    recorders = {}
    for owner, name in [(nn, "VisionConfig"), (nn, "decay_groups"), (nn, "warmup_cosine"),
                        (images, "shuffled_steps")]:
        recorders[name] = Recorder(getattr(owner, name))
        monkeypatch.setattr(owner, name, recorders[name])
    train.main(["images", "--data", str(images_folder), "--epochs", "2", "--batch-size", "40",
                "--n-embd", "12", "--lr", "0.003", "--patch-size", "1", "--n-layer", "1",
                "--n-head", "3", "--weight-decay", "0.2", "--seed", "9", "--pool", "class"])
    (sizes, more), = recorders["VisionConfig"].calls
    assert sizes == ((8, 6), 1, 3, 1, 3, 12) and more["pool"] == "class"
    assert recorders["decay_groups"].calls[0][0][1] == 0.2
    assert [call[0][0] for call in recorders["warmup_cosine"].calls] == list(range(6))
    assert recorders["warmup_cosine"].calls[0][1]["peak"] == 0.003
    assert [call[0] for call in recorders["shuffled_steps"].calls] == [(90, 40, 9, 0, False)]


def test_flags_reach_the_static_classifier_and_its_rate_falls(images_folder, monkeypatch, capsys):
    step, classifier = Recorder(engines.sgd_step), Recorder(static_vision.Classifier)
    monkeypatch.setattr(engines, "sgd_step", step)
    monkeypatch.setattr(images, "Classifier", classifier)
    train.main(["images", "--engine", "static", "--data", str(images_folder), "--epochs", "4",
                "--batch-size", "45", "--n-embd", "12", "--lr", "0.2"])
    assert classifier.calls[0][0] == (8, 6, 12, 3, 45)
    rates = [lr for (_, _, _, _, lr), _ in step.calls]
    assert rates == pytest.approx([0.2, 0.2, 0.15, 0.15, 0.1, 0.1, 0.05, 0.05])
    (_, X, y, _, _), _ = step.calls[0]
    assert X.shape == (45, 8, 6) and y.shape == (45,)
    every = np.concatenate([X for (_, X, _, _, _), _ in step.calls[:2]])
    assert len(np.unique(every.reshape(90, -1), axis=0)) == 90           # an epoch sees each image once


def test_what_is_tested_on_is_never_trained_on(images_folder, monkeypatch, capsys):
    tested, trained = Recorder(vision.predict), Recorder(nn.VisionTransformer.forward)
    monkeypatch.setattr(nn, "predict", tested)
    monkeypatch.setattr(nn.VisionTransformer, "forward", lambda *a: trained(*a))
    monkeypatch.setattr(images, "load_idx", lambda _: ImageData(
        np.ones((20, 4, 4), np.float32), np.arange(20) % 2, -np.ones((6, 4, 4), np.float32),
        np.arange(6) % 2))
    monkeypatch.setattr(ImageData, "standardised", lambda self: self)
    train.main(["images", "--data", "x", "--epochs", "1", "--batch-size", "20", "--patch-size", "4"])
    with_labels = [args for args, _ in trained.calls if len(args) == 3]
    assert len(with_labels) == 2            # the first for its costs, by shapes alone
    assert all(args[1].min() == 1 for args in with_labels)
    assert tested.calls[0][0][1].max() == -1


@pytest.mark.parametrize("arguments, message", [
    (["--engine", "lazy"], "--engine: invalid choice: 'lazy' (choose from"),
    (["images", "--engine", "static", "--n-layer", "2"], "--n-layer is not for --engine static"),
    (["images", "--engine", "static", "--patch-size", "2"], "--patch-size is not for --engine static"),
    (["images", "--data", "nowhere"], "there is no folder nowhere"),
    (["images", "--data", train.__file__], "train.py is a file; give the folder that holds"),
    (["images", "--data", "."], "has no file train-images-idx3-ubyte"),
    (["images", "--epochs", "0"], "--epochs: must be an integer >= 1"),
    (["imgaes"], "unknown job 'imgaes'; did you mean 'images'?"),
])
def test_train_refuses_in_words(arguments, message, folder, capsys):
    assert message in refused(capsys, train.main, *arguments)


def test_images_refuses_what_does_not_fit_the_data(images_folder, monkeypatch, capsys):
    data = ["images", "--data", str(images_folder)]
    assert "at most the 90 images" in refused(capsys, train.main, *data, "--batch-size", "91")
    assert "--patch-size must divide" in refused(capsys, train.main, *data, "--patch-size", "5")
    assert "--n-head must divide --n-embd" in refused(capsys, train.main, *data, "--n-head", "5")
    assert "the loss is" in refused(capsys, train.main, *data, "--engine", "static", "--lr", "1e30")
    (images_folder / "t10k-images-idx3-ubyte").write_bytes(b"nonsense")
    assert "t10k-images-idx3-ubyte is not an IDX file" in refused(capsys, train.main, *data)


def test_without_scikit_learn_the_message_says_how_to_get_it(monkeypatch, capsys):
    monkeypatch.setitem(__import__("sys").modules, "sklearn.datasets", None)
    err = refused(capsys, train.main, "images")
    assert 'pip install -e ".[images]"; or give --data' in err


def test_help_of_images(capsys):
    with pytest.raises(SystemExit):
        train.main(["images", "--help"])
    out = " ".join(capsys.readouterr().out.split())
    assert "the 1,797 digits" in out and "default: a quarter of the height" in out


def test_images_of_30_x_30_are_learned_and_a_patch_size_that_does_not_fit_names_the_nearest(
        folder, capsys):
    labels = np.arange(60) % 3
    pixels = np.tile(80 * labels[:, None, None], (1, 30, 30)).astype(np.uint8)
    for part in ("train", "t10k"):
        Path(f"{part}-images-idx3-ubyte").write_bytes(idx_bytes(pixels))
        Path(f"{part}-labels-idx1-ubyte").write_bytes(idx_bytes(labels.astype(np.uint8)))
    small = ["images", "--data", ".", "--epochs", "1", "--n-embd", "8", "--n-layer", "1"]
    assert train.main(small) == 0
    assert "a sequence of 25 patches" in capsys.readouterr().out
    error = refused(capsys, train.main, *small, "--patch-size", "7")
    assert "--patch-size must divide" in error and "the nearest that does is 6" in error
