"""The benchmark: each library computes the same, it runs, and it says what moved."""

import json

import numpy as np
import pytest

import tape
from tests.bench import rounds, sizes, table, worker
from tests.bench.__main__ import main
from tests.checks import peer

SMALL = sizes.Sizes(layers=2, heads=2, width=16, block=8, batch=3, vocabulary=11)
PEERS = [name for name in worker.ALL if name != "tape"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")       # the peers' own
class TestThePeersComputeTheSame:
    @pytest.fixture(params=PEERS)
    def other(self, request):
        peer(request.param) if request.param in ("torch", "autograd") else pytest.importorskip(
            request.param)
        return worker.library(request.param)

    def test_losses_of_training(self, other):
        losses = [[step() for _ in range(4)] for step in (
            worker.library("tape").training_step(SMALL), other.training_step(SMALL))]
        np.testing.assert_allclose(*losses, rtol=1e-5)
        assert losses[0][3] < losses[0][0]

    def test_gradients(self, other):
        x, table = np.random.default_rng(0).normal(0, 0.5, (2, 4, 4)).astype(np.float32)
        ids = np.array([1, 3, 1])
        for f in (lambda lib: lambda x, y: (lib.tanh(x @ y) * x + y).sum(),
                  lambda lib: lambda x, y: (lib.look_up(y, ids) * x[:3]).sum()):
            ours, theirs = ([np.asarray(g) for g in lib.differentiating(f(lib), [x, table])()]
                            for lib in (worker.library("tape"), other))
            np.testing.assert_allclose(theirs, ours, rtol=1e-4, atol=1e-6)


def test_losses_with_parts_of_the_batch_are_those_without():
    plain, parallel = ([step() for _ in range(4)] for step in (
        worker.library(name).training_step(SMALL) for name in ("tape", "parallel")))
    np.testing.assert_allclose(parallel, plain, rtol=1e-5)


@pytest.mark.parametrize("name", ["composed", "numpy-kernels", "numba-kernels", "torch"])
def test_kernels_and_what_they_are_compared_with_have_the_same_gradients(name):
    if name == "torch":
        peer(name)
    if name == "numba-kernels":
        pytest.importorskip("numba", reason="numba is not installed; pip install -e '.[fast]'")
    with tape.use_kernels("numpy"):
        ours = {kernel: call() for kernel, call in worker.library("tape").kernels().items()}
        others = worker.library(name).kernels()
        assert list(ours) == list(others) == list(sizes.KERNEL_INPUTS)
        for kernel, gradients in ours.items():
            for a, b in zip(gradients, others[kernel](), strict=True):
                np.testing.assert_allclose(np.asarray(b), a, atol=2e-4, rtol=1e-3, err_msg=kernel)


def test_torch_writes_with_what_it_keeps_as_without():
    torch = peer("torch")
    from tests.bench import library_torch
    model, idx = library_torch.Model(SMALL), torch.arange(8)[None]
    kept = [[] for _ in model.blocks]
    parts = [model(idx[:, i:i + 1], i, kept) for i in range(8)]
    torch.testing.assert_close(torch.cat(parts, 1), model(idx))


def test_a_run_prints_its_table_saves_it_and_compares(tmp_path, capsys):
    file = tmp_path / "run.json"
    options = ["--only", "step-smallest", "generate", "--libraries", "tape", "--rounds", "2",
               "--seconds", "0.01"]
    main([*options, "--save", str(file)])
    captured = capsys.readouterr()
    assert "| step smallest, ms | " in captured.out and "tokens/s" in captured.out
    assert "OPENBLAS_NUM_THREADS=" in captured.out              # the tests set it
    assert "round 2 of 2, generate, tape: " in captured.err and "0.0 min left" in captured.err
    saved = json.loads(file.read_text())
    times = saved["figures"]["step smallest, ms"]["tape"]
    assert len(times) == 2 and all(0 < best <= middle for middle, best in times)

    saved["figures"]["step smallest, ms"]["tape"] = [[1e6, 1e6], [2e6, 2e6]]
    file.write_text(json.dumps(saved))
    main([*options, "--compare", str(file)])
    assert "step smallest, ms: tape 1,500,000 -> " in capsys.readouterr().out


def test_what_moved():
    old = {"step, ms": {"tape": [(10.0, 9.0), (11.0, 9.0)], "torch": [(5.0, 5.0), (5.0, 5.0)]}}
    slower = {"step, ms": {name: [(2 * a, 2 * b) for a, b in pairs]
                           for name, pairs in old["step, ms"].items()}}
    assert "tape 10.5 -> 21.0 (+100%)" in table.comparison(old, slower)
    assert "tape / torch" not in table.comparison(old, slower)  # a slower machine moves no ratio
    assert table.comparison(old, old).endswith("nothing")
    assert "| step, ms | 10.5 (10.0-11.0) | 5.00: 2.10 (2.00-2.20) |" in table.table(old)
    both = {"step, ms": {**old["step, ms"], "parallel": [(5.0, 5.0), (20.0, 20.0)]}}
    assert "| 12.5: 1.27 (0.55-2.00) | 5.00: 1.60 (1.00-2.20) |" in table.table(
        {"step, ms": {name: both["step, ms"][name] for name in ("tape", "parallel", "torch")}})
    assert table.figure_of([(2.0, 1.0)]) == "2.00*"


def test_a_case_that_is_none_and_a_peer_that_fails(monkeypatch, capsys):
    with pytest.raises(SystemExit):
        main(["--only", "sleep"])
    assert "'sleep'; they are step-smallest, " in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["--libraries", "abacus"])
    assert "installed, got abacus; installed are tape, " in capsys.readouterr().err

    def run(case, library, seconds):
        if library == "torch":
            raise RuntimeError("ImportError: no compiler")
        return {"step, ms": (1.0, 1.0)}

    monkeypatch.setattr(rounds, "run", run)
    assert rounds.measure(["step-seed"], ["tape", "torch"], 2, 1) == {
        "step, ms": {"tape": [(1.0, 1.0)] * 2}}
    assert capsys.readouterr().err.count("torch left out: ImportError: no compiler") == 1


def test_ctrl_c_leaves_what_was_measured(monkeypatch, capsys):
    turns = iter([{"step, ms": (1.0, 1.0)}, {"step, ms": (2.0, 2.0)}])

    def run(*turn):
        for figures in turns:
            return figures
        raise KeyboardInterrupt

    monkeypatch.setattr(rounds, "run", run)
    found = rounds.measure(["step-seed"], ["tape", "torch"], 2, 1)
    assert found == {"step, ms": {"tape": [(1.0, 1.0)], "torch": [(2.0, 2.0)]}}
    assert "interrupted" in capsys.readouterr().err
