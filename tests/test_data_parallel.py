"""`nn.DataParallel`: a model on parts of a batch gives what it gives on the whole."""

import copy
import os
import pickle
import sys
import warnings

import numpy as np
import pytest

import nn
import tape
import train
from nn.jobs import job
from nn.training.engines import TapeEngine
from nn.training.parallel import on_processors
from nn.training.parts import even_parts
from tape import Tensor
from tests.checks import ROOT, Recorder, in_float64, run_python

IDX = np.random.default_rng(0).integers(0, 7, (7, 5))
TARGETS = np.random.default_rng(1).integers(0, 7, (7, 5))
for row, length in enumerate([5, 1, 0, 2, 5, 0, 3]):       # padded rows of different lengths
    TARGETS[row, length:] = -1
IMAGES = np.random.default_rng(2).random((5, 8, 8))

MODELS = {
    "gpt": (lambda p: nn.GPT(nn.GPTConfig(7, 5, 2, 2, 8, dropout=p), rng=0), (IDX, TARGETS)),
    "llama": (lambda p: nn.GPT(nn.GPTConfig(
        7, 5, 1, 2, 8, dropout=p, norm_kind="rms", activation="swiglu", position="rotary", bias=False,
        tie_weights=False, n_kv_head=1), rng=0), (IDX, TARGETS)),
    "lstm": (lambda p: nn.RecurrentLM(nn.RecurrentConfig(7, 5, "lstm", 2, 6, dropout=p), rng=0),
             (IDX, TARGETS)),
    "seq2seq": (lambda p: nn.Seq2SeqTransformer(nn.Seq2SeqConfig(
        7, 7, 5, 1, 2, 8, dropout=p), rng=0), (IDX, np.abs(TARGETS), TARGETS)),
    "vision": (lambda p: nn.VisionTransformer(nn.VisionConfig((8, 8), 4, 3, 1, 2, 8), rng=0),
               (IMAGES, np.array([0, 2, 1, 1, 0]))),
}


LINUX = sys.platform.startswith("linux")
by_processes = pytest.mark.parametrize(
    "processes", [False, pytest.param(True, marks=pytest.mark.skipif(not LINUX, reason="not Linux"))])


def found(make, batch, workers=None, p=0.0, processes=False):
    """Logits, loss and gradients of a model in float64, on the whole batch or in parts."""
    model = in_float64(make(p))
    called = model if workers is None else nn.DataParallel(model, workers, processes)
    logits, loss = called(*batch)
    (loss + 0.1 * (logits ** 2).mean()).backward()         # through the logits too
    return [logits.numpy(), loss.numpy(), *(p.grad for p in model.parameters())]


@pytest.mark.parametrize("p", [0.0, 0.3])
@pytest.mark.parametrize("workers", [2, 3, 50])
@pytest.mark.parametrize("make, batch", MODELS.values(), ids=MODELS)
def test_results_and_gradients_are_those_of_the_whole_batch(make, batch, workers, p):
    wanted = found(make, batch, p=p)
    got = found(make, batch, workers, p)
    for a, b in zip(got, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)
    for processes in (False, LINUX and workers < 50):
        for a, b in zip(found(make, batch, workers, p, processes), got):
            np.testing.assert_array_equal(a, b)            # and the same bits at each run


@by_processes
def test_dropout_goes_on_as_it_would_have_without_parts(processes):
    make, batch = MODELS["gpt"]
    one, two = in_float64(make(0.5)), in_float64(make(0.5))
    parallel = nn.DataParallel(two, 3, processes)
    for _ in range(3):
        np.testing.assert_allclose(parallel(*batch)[0].numpy(), one(*batch)[0].numpy(), atol=1e-12)
    np.testing.assert_allclose(two(*batch)[0].numpy(), one(*batch)[0].numpy(), atol=1e-12)
    parallel.eval(), one.eval()
    assert not two.training and not two.blocks[0].training
    np.testing.assert_allclose(parallel(*batch)[0].numpy(), one(*batch)[0].numpy(), atol=1e-12)
    assert parallel.train() is parallel and two.blocks[1].training


@pytest.mark.skipif(not LINUX, reason="processes need Linux")
@pytest.mark.parametrize("name", ["gpt", "lstm"])
def test_a_training_in_processes_has_the_bits_of_one_in_threads(name, kernel_set):
    """With all that a program may do to a model between two steps."""
    make, batch = MODELS[name]

    def trained(processes):
        model = make(0.2)
        parallel = nn.DataParallel(model, 2, processes)
        optimizer, seen = nn.AdamW(model.parameters(), lr=0.01), []
        for step in range(6):
            _, loss = parallel(*batch)
            optimizer.zero_grad()
            loss.backward()
            seen += [loss.item(), *(p.grad.copy() for p in model.parameters() if p.requires_grad)]
            nn.clip_grad_norm(model.parameters(), 0.1)
            optimizer.step()
            if step == 1:
                with nn.evaluating(model), tape.no_grad():
                    seen.append(parallel(*batch)[1].item())
            if step == 2:
                model.load_state_dict({key: value * 0.9 for key, value in model.state_dict().items()})
            if step == 3:
                model.parameters()[0].requires_grad = False
                optimizer = nn.SGD(model.parameters()[1:], lr=0.1)
            if step == 4:
                for part in model.modules():
                    if isinstance(part, nn.Dropout):
                        part.p = 0.5
        return [*seen, *model.state_dict().values()]
    for a, b in zip(trained(True), trained(False), strict=True):
        np.testing.assert_array_equal(a, b)


class Dropped(nn.Module):
    def __init__(self):
        self.dropout = nn.Dropout(0.5, rng=0)

    def forward(self, x, reshape=False):
        if reshape:
            return self.dropout(tape.reshape(x, (-1, x.shape[-1])))
        return x + self.dropout(Tensor(np.ones((7, 3))))


def test_dropout_of_an_array_without_rows_is_the_same_in_all_parts():
    x = np.zeros((4, 7, 3))
    np.testing.assert_array_equal(nn.DataParallel(Dropped(), 2)(x).numpy(), Dropped()(x).numpy())


def test_the_part_of_a_batch_may_have_its_rows_and_others_on_one_axis():
    class Rows(Dropped):
        def forward(self, x):
            return super().forward(x, reshape=True).reshape(x.shape)
    x = Tensor(np.ones((5, 4, 3)))
    np.testing.assert_array_equal(nn.DataParallel(Rows(), 3)(x).numpy(), Rows()(x).numpy())


def test_dropout_of_different_shapes_in_the_parts_is_refused():
    with pytest.raises(ValueError, match="what is dropped must have the rows of the batch"):
        nn.DataParallel(Dropped(), 2)(np.zeros((13, 7, 3)))      # 7 is a multiple of 7, not of 6
    assert even_parts(13, 2) == [slice(0, 6), slice(6, 13)]


def test_arguments_by_name_and_without_targets():
    make, _ = MODELS["gpt"]
    model = make(0.0)
    parallel = nn.DataParallel(model, 2)
    wanted, loss = model(IDX, TARGETS)
    for logits, other in (parallel(idx=IDX, targets=TARGETS), parallel(targets=TARGETS, idx=IDX),
                          parallel(IDX.tolist(), targets=TARGETS.tolist())):
        np.testing.assert_allclose(logits.numpy(), wanted.numpy(), atol=1e-6)
        np.testing.assert_allclose(other.item(), loss.item(), rtol=1e-6)
    logits, other = parallel(IDX)
    assert other is None
    np.testing.assert_allclose(logits.numpy(), wanted.numpy(), atol=1e-6)
    with tape.no_grad():
        assert not parallel(IDX)[0].requires_grad


@by_processes
def test_an_input_gets_its_gradient(processes):
    model = nn.Sequential(in_float64(nn.Linear(3, 4, rng=0)), nn.GELU())
    inputs = [Tensor(np.random.default_rng(0).standard_normal((5, 3)), requires_grad=True)
              for _ in range(2)]
    for run, x in zip((nn.DataParallel(model, 2, processes), model), inputs):
        (run(x * 2) ** 2).sum().backward()
    np.testing.assert_allclose(inputs[0].grad, inputs[1].grad, rtol=1e-12)


def test_the_gradient_of_an_input_and_derivatives_of_derivatives():
    model = nn.Sequential(in_float64(nn.Linear(3, 4, rng=0)), nn.GELU())
    x = np.random.default_rng(0).standard_normal((5, 3))

    def second(run):
        t = Tensor(x, requires_grad=True)
        slope = tape.grad((run(t) ** 2).sum(), t, create_graph=True)
        found = tape.grad((slope ** 2).sum(), [t, *model.parameters()], allow_unused=True)
        return slope.numpy(), *(g.numpy() for g in found if g is not None)
    for a, b in zip(second(nn.DataParallel(model, 2)), second(model)):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


def test_a_mean_without_targets_is_weighted_by_rows_and_structures_are_joined():
    class Model(nn.Module):
        def forward(self, x):
            return {"mean": x.mean(), "rows": [x * 2, None], "array": np.asarray(x.numpy()) + 1}
    x = Tensor(np.arange(10.0).reshape(5, 2), requires_grad=True)
    got, wanted = nn.DataParallel(Model(), 2)(x), Model()(x)
    np.testing.assert_allclose(got["mean"].item(), wanted["mean"].item())
    np.testing.assert_array_equal(got["rows"][0].numpy(), wanted["rows"][0].numpy())
    np.testing.assert_array_equal(got["array"], wanted["array"])
    assert got["rows"][1] is None


def test_a_part_without_a_target_that_counts_adds_nothing_and_does_not_warn():
    targets = np.full_like(IDX, -1)
    targets[6] = 2

    class Model(nn.Module):
        def __init__(self):
            self.scale = nn.Parameter([1.0])

        def forward(self, idx, targets):
            with np.errstate(invalid="ignore"):            # the mean of nothing is 0 / 0
                counted = targets != -1
                return (self.scale * np.where(counted, idx, 0)).sum() / np.float32(counted.sum())
    make, _ = MODELS["gpt"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loss = nn.DataParallel(make(0.0), 3)(IDX, targets)[1]
        other = nn.DataParallel(Model(), 3)(IDX, targets)
    np.testing.assert_allclose(loss.item(), make(0.0)(IDX, targets)[1].item(), rtol=1e-6)
    np.testing.assert_allclose(other.item(), Model()(IDX, targets).item(), rtol=1e-6)
    with pytest.warns(UserWarning, match="all .* targets are -1"):
        assert nn.DataParallel(make(0.0), 3)(IDX, np.full_like(IDX, -1))[1].item() == 0


def test_one_row_and_one_worker_are_left_to_the_model():
    make, _ = MODELS["gpt"]
    model = make(0.0)
    forward = model.forward = Recorder(model.forward)
    for rows, workers, wanted in ((1, 4, [1]), (7, 1, [7]), (2, 4, [1, 1]), (7, 3, [2, 2, 3])):
        forward.calls.clear()
        nn.DataParallel(model, workers)(IDX[:rows], TARGETS[:rows])
        assert sorted(len(idx) for (idx, _), _ in forward.calls) == wanted


@by_processes
def test_names_states_and_copies_are_those_of_the_model(processes):
    make, batch = MODELS["lstm"]
    model = make(0.0)
    parallel = nn.DataParallel(model, 2, processes)
    assert [n for n, _ in parallel.named_parameters()] == [n for n, _ in model.named_parameters()]
    assert parallel.parameter_count() == model.parameter_count() and list(
        parallel.state_dict()) == list(model.state_dict())
    parallel.load_state_dict({name: array + 1 for name, array in model.state_dict().items()})
    _, loss = parallel(*batch)
    loss.backward()
    for again in (copy.deepcopy(parallel), pickle.loads(pickle.dumps(parallel))):
        assert again.model is not model and again.workers == 2
        np.testing.assert_array_equal(again(*batch)[1].numpy(), loss.numpy())
    parallel.zero_grad()
    assert all(p.grad is None for p in model.parameters())


@by_processes
def test_an_error_of_the_model_reaches_the_caller_once(processes):
    make, _ = MODELS["gpt"]
    parallel = nn.DataParallel(make(0.0), 2, processes)
    wrong = IDX.copy()
    wrong[6, 0] = 99
    with pytest.raises(IndexError, match="99"):
        parallel(wrong)
    assert parallel(IDX)[0].shape == (7, 5, 7)


@pytest.mark.parametrize("call, message", [
    (lambda p: p(IDX, TARGETS[:3]), r"one row for each example .* \(7, 5\), \(3, 5\)"),
    (lambda p: p(IDX, cache=p.model.new_cache()), "arguments must be arrays.* got a DecoderCache"),
])
def test_arguments_that_cannot_be_split_are_refused(call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call(nn.DataParallel(MODELS["gpt"][0](0.0), 2))


@pytest.mark.parametrize("out, message", [(lambda x: "text", "results must be Tensors.* got a str"),
                                          (lambda x: x[0], "a row for each row of the batch")])
def test_results_that_cannot_be_joined_are_refused(out, message):
    class Model(nn.Module):
        def forward(self, x):
            return out(x)
    with pytest.raises((ValueError, TypeError), match=message):
        nn.DataParallel(Model(), 2)(np.zeros((7, 2)))


@pytest.mark.parametrize("workers", [0, -1, 1.5, "2", True])
def test_a_number_of_workers_that_is_none_is_refused(workers):
    with pytest.raises(ValueError, match="workers must be a positive integer or None, got"):
        nn.DataParallel(nn.Linear(2, 3, rng=0), workers)
    with pytest.raises(TypeError, match="model must be a Module, got int"):
        nn.DataParallel(3)


def test_float32_stays_float32():
    model = MODELS["gpt"][0](0.1)
    logits, loss = nn.DataParallel(model, 2)(IDX, TARGETS)
    loss.backward()
    assert logits.dtype == loss.dtype == np.float32
    assert all(p.grad.dtype == np.float32 for p in model.parameters())


@pytest.mark.parametrize("size", [None, 3])
def test_an_update_with_workers_is_that_without(size):
    def updated(workers):
        model = in_float64(MODELS["gpt"][0](0.0))
        engine = TapeEngine(model, nn.AdamW(model.parameters()), 0.5, size, workers=workers)
        return [engine.update(i, (IDX, TARGETS), 0.01) for i in (1, 2, 3)], model.state_dict()
    (losses, state), (wanted, other) = updated(2), updated(1)
    np.testing.assert_allclose(losses, wanted, rtol=1e-12)
    for name, array in state.items():
        np.testing.assert_allclose(array, other[name], rtol=1e-8, atol=1e-10, err_msg=name)


@pytest.mark.parametrize("asked, sizes, positions, wanted", [
    (None, (65, 64, 4, 4, 128), 768, 3),           # the default of train.py text
    (None, (65, 64, 4, 4, 128), 12, 1),
    (None, (65, 64, 1, 1, 16), 768, 1),
    (2, (65, 64, 1, 1, 16), 1, 2),
    (1, (65, 64, 4, 4, 128), 768, 1),
])
def test_how_many_workers_a_training_takes_depends_on_sizes(
        kernel_set, asked, sizes, positions, wanted, monkeypatch, capsys):
    monkeypatch.setattr(job, "available_cores", lambda: 3)
    with nn.without_memory():
        model = nn.GPT(nn.GPTConfig(*sizes))
    works = tape.limit_blas_threads(1).works
    with tape.use_kernels():
        assert job.chosen_workers(asked, model, positions) == (wanted if works or asked else 1)
        threads = tape.kernel_threads()
        run = on_processors(model, wanted)
    printed = capsys.readouterr().out
    kind = "processes" if LINUX else "threads"
    assert not works or printed == (
        "1 worker with one BLAS thread\n" if wanted == 1 else
        f"compiled kernels in {wanted} threads\n" if threads == wanted else
        f"{wanted} {kind}, each with one BLAS thread\n")
    assert (run is model) == (threads == wanted)
    assert run is model or run.workers == wanted and (run._pool is not None) == LINUX


def test_where_numba_cannot_be_imported_a_training_computes_with_numpy(tmp_path):
    for package in ("numba", "llvmlite"):  # in an environment without Numba there is no llvmlite either
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("raise ImportError('it does not fit NumPy')")
    (tmp_path / "text").write_text("the old cat sat. " * 60)
    paths = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    paths.pop("TAPE_KERNELS", None)
    done = run_python(str(ROOT / "train.py"), "text", "--data", "text", "--steps", "2", "--n-embd", "8",
                      "--block-size", "8", "--workers", "2", cwd=tmp_path, env=paths)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    assert "importing it fails (it does not fit NumPy); the kernels in use are NumPy's" in done.stderr
    assert ("2 processes" if LINUX else "2 threads") + ", each with" in done.stdout


def test_a_training_with_workers_is_that_with_one_to_rounding(
        kernel_set, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text").write_text("the old cat sat. " * 60)
    states = []
    for workers in ("1", "2", "2"):
        arguments = ["text", "--data", "text", "--steps", "4", "--n-embd", "8", "--block-size", "8",
                     "--dropout", "0.2", "--workers", workers]
        assert train.main(arguments) == 0
        printed = capsys.readouterr().out
        assert ("1 worker with" if workers == "1" else "compiled kernels in 2 threads" if
                kernel_set == "numba" else "2 processes" if LINUX else "2 threads") in printed
        states.append(nn.load_checkpoint("checkpoints/latest/last.npz").model.state_dict())
    for name, array in states[0].items():
        np.testing.assert_allclose(states[1][name], array, atol=1e-4, err_msg=name)
        np.testing.assert_array_equal(states[1][name], states[2][name], err_msg=name)


class Classifier(nn.Module):
    def __init__(self, **how):
        self.layer, self.how = nn.Linear(3, 4, rng=0), how

    def forward(self, x, targets):
        return nn.cross_entropy(self.layer(x), targets, **self.how)


@pytest.mark.parametrize("how, targets, warned", [
    ({"ignore_index": 0}, [0, 0, 1, 3], True), ({"reduction": "sum"}, [2, 0, 1, 3], True),
    ({"ignore_index": 9}, [2, 0, 1, 3], False), ({}, [-1, 0, 1, 3], False)])
def test_a_loss_that_is_weighted_otherwise_than_it_counts_is_warned_of(how, targets, warned):
    x, targets = np.random.default_rng(0).standard_normal((4, 3)), np.array(targets)
    parallel = nn.DataParallel(Classifier(**how), 2)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        loss = parallel(x, targets)
    assert bool(found) == warned
    if warned:
        assert "DataParallel takes the loss of each part" in str(found[0].message)
    else:
        np.testing.assert_allclose(loss.item(), parallel.model(x, targets).item(), rtol=1e-6)


def test_labels_that_are_signs_are_warned_of_where_they_are_no_classes():
    class Hinge(nn.Module):
        def __init__(self):
            self.layer = nn.Linear(3, 1, rng=0)

        def forward(self, x, y):
            return tape.relu(1 - y * self.layer(x)[:, 0]).mean()
    x, y = np.random.default_rng(0).standard_normal((8, 3)).astype(np.float32), np.repeat([1, -1], 4)
    parallel = nn.DataParallel(Hinge(), 2)
    with pytest.warns(UserWarning, match="targets of -1 are taken for ones that do not count"):
        parallel(x, y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = parallel(x, y.astype(np.float32))
        nn.DataParallel(Classifier(), 2)(x[:, :3], np.where(y < 0, -1, 1))
    np.testing.assert_allclose(found.item(), parallel.model(x, y).item(), rtol=1e-6)
