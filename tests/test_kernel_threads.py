"""Threads of compiled kernels: who computes which part, and that it changes no number."""

import multiprocessing
import os
import threading
import time

import numpy as np
import pytest

import nn
import tape
from tests.checks import leaf, run_python

pytest.importorskip("numba", reason="numba is not installed; pip install -e '.[fast]'")

from tape.blas import blas_threads, shipped_functions       # noqa: E402
from tape.kernels import numba as compiled                  # noqa: E402
from tape.kernels.numba import threads as team              # noqa: E402

pytestmark = pytest.mark.skipif(shipped_functions() is None,
                                reason="threads need the OpenBLAS of NumPy's wheels")
RNG = np.random.default_rng(0)


@pytest.fixture(params=[2, 3, 5])
def threads(request):
    """Kernels compute with so many threads, more than there are processors too."""
    with tape.use_kernels("numba", threads=request.param):
        team._team.shared[team._ALONE] = 0
        yield request.param


def results(dtype=np.float32):
    """name -> a call that computes something large, for the array or arrays that it returns."""
    rng = np.random.default_rng(1)
    x, g = rng.standard_normal((2, 1001, 130)).astype(dtype)
    weight, bias = rng.standard_normal((2, 130)).astype(dtype)
    q, k, v, g_out = rng.standard_normal((4, 3, 150, 4, 16)).astype(dtype).swapaxes(2, 3)
    picks = rng.integers(-1, 130, 1001)
    _, kept = compiled.layer_norm(x, weight, bias, 1e-5)
    loss, of_loss = compiled.cross_entropy(x, picks, -1, "mean")
    _, weights = compiled.causal_attention(q, k, v, None)
    p, m, s = x.reshape(-1).copy(), np.zeros(x.size, dtype), np.zeros(x.size, dtype)

    def adam():
        arrays = p.copy(), m.copy(), s.copy()
        compiled.adam_update(arrays[:1], [g.reshape(-1)], *arrays[1:], 1, 0.1, (0.9, 0.99), 1e-8, 0.1)
        return arrays

    return {
        "gelu": lambda: compiled.gelu(x), "gelu_backward": lambda: compiled.gelu_backward(g, x),
        "gelu_exact": lambda: compiled.gelu_exact(x),
        "gelu_exact_backward": lambda: compiled.gelu_exact_backward(g, x),
        "swiglu": lambda: compiled.swiglu(g, x),
        "swiglu_backward": lambda: compiled.swiglu_backward(x, g, x),
        "rms_norm": lambda: compiled.rms_norm(x, weight, 1e-5)[0],
        "rms_norm_backward": lambda: compiled.rms_norm_backward(
            g, x, weight, compiled.rms_norm(x, weight, 1e-5)[1]["rrms"]),
        "softmax": lambda: compiled.softmax(x), "add": lambda: compiled.add(x, g),
        "add in place": lambda: (lambda total: compiled.add(total, g, total))(x.copy()),
        "layer_norm": lambda: compiled.layer_norm(x, weight, bias, 1e-5)[0],
        "layer_norm_backward": lambda: compiled.layer_norm_backward(g, x, weight, bias, **kept),
        "cross_entropy": lambda: (compiled.cross_entropy(x, picks, -1, "mean")[0],),
        "cross_entropy_backward": lambda: compiled.cross_entropy_backward(
            dtype(1), x, picks, -1, "mean", **of_loss)[:1],
        "causal_attention": lambda: compiled.causal_attention(q, k, v, None)[0],
        "causal_attention_backward": lambda: compiled.causal_attention_backward(
            g_out, q, k, v, None, **weights),
        "adam_update": adam,
    }


def arrays(result):
    return result if isinstance(result, tuple) else (result,)


SUMS_OVER_ROWS = "layer_norm_backward", "rms_norm_backward", "cross_entropy"    # in another order


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_parts_are_the_whole(threads, dtype):
    alone, calls = {}, results(dtype)
    with tape.use_kernels("numba", threads=1):
        for name, call in calls.items():
            alone[name] = call()
    assert tape.kernel_threads() == threads
    for name, call in calls.items():
        for a, b in zip(arrays(call()), arrays(alone[name]), strict=True):
            if name in SUMS_OVER_ROWS:
                np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5, err_msg=name)
            else:
                np.testing.assert_array_equal(a, b, err_msg=name)


def test_every_run_has_the_same_bits(threads):
    for name, call in results().items():
        first = call()
        for _ in range(20):
            for a, b in zip(arrays(call()), arrays(first), strict=True):
                np.testing.assert_array_equal(a, b, err_msg=name)


@pytest.mark.parametrize("rows, summed, columns", [
    (700, 90, 70), (70, 90, 700), (3, 1000, 2000), (2000, 1000, 2), (1, 3000, 1000), (3000, 1, 1000),
    (80, 2000, 70)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_products_of_any_layout(threads, rows, summed, columns, dtype):
    x, y = RNG.standard_normal((rows, summed)), RNG.standard_normal((summed, columns))
    wanted = np.einsum("ik,kj->ij", x, y)
    for a in _layouts(x.astype(dtype)):
        for b in _layouts(y.astype(dtype)):
            found = tape.matmul(a, b)
            assert found.dtype == dtype and found.flags.c_contiguous
            np.testing.assert_allclose(found, wanted, atol=(1e-3 if dtype == np.float32 else 1e-10))


def _layouts(x):
    wide = np.zeros((x.shape[0], x.shape[1] + 3), x.dtype)
    wide[:, :-3] = x
    return [x, np.asfortranarray(x), wide[:, :-3], np.repeat(x, 2, axis=1)[:, ::2]]


def _heads(x):
    """(..., T, D) in memory in this order of axes, and as views of (..., T, H, D) and (..., D, T)."""
    return [x, *(x.swapaxes(*axes).copy().swapaxes(*axes) for axes in ((-3, -2), (-2, -1)))]


@pytest.mark.parametrize("leading", [(4,), (3, 4), (2, 1, 4)])
@pytest.mark.parametrize("dtype, tolerance", [(np.float32, 1e-3), (np.float64, 1e-11)])
def test_pairs_of_matrices(threads, leading, dtype, tolerance):
    x, y = RNG.standard_normal((*leading, 80, 50)), RNG.standard_normal((*leading, 50, 90))
    wanted = np.einsum("...ik,...kj->...ij", x, y)
    for a in _heads(x.astype(dtype)):
        for b in _heads(y.astype(dtype)):
            found = tape.matmul(a, b)
            assert found.dtype == dtype
            np.testing.assert_allclose(found, wanted, atol=tolerance)
    first = y[..., :1, :, :]
    np.testing.assert_allclose(
        tape.matmul(x, first), np.einsum("...ik,...kj->...ij", x, first), atol=1e-9)


def test_many_threads_take_no_more_memory_than_the_product(monkeypatch):
    taken, empty = [], np.empty
    monkeypatch.setattr(np, "empty", lambda *args: taken.append(empty(*args)) or taken[-1])
    x, y = np.ones((200, 400), np.float32), np.ones((400, 300), np.float32)
    for threads in (2, 32):
        with tape.use_kernels("numba", threads=threads):
            assert (compiled.product(x, y) == 400).all()
    assert max(array.size for array in taken) <= x.size + y.size


def test_what_cannot_be_multiplied_says_so(threads):
    with pytest.raises(ValueError, match="1000"):
        tape.matmul(np.ones((1000, 1000), np.float32), np.ones((1001, 1000), np.float32))


def test_the_products_keep_their_own_threads(threads):
    before = blas_threads()
    x = RNG.standard_normal((900, 900)).astype(np.float32)
    for _ in range(10):
        compiled.product(x, x)
    assert blas_threads() == before


def test_a_limit_that_is_set_while_a_kernel_runs_stays_and_goes_back(threads):
    x, computing = np.ones((900, 900), np.float32), threading.Event()
    computing.set()

    def compute():
        while computing.is_set():
            compiled.product(x, x)

    compiled.product(x, x)
    with tape.limit_blas_threads(1000):
        before, seen = blas_threads(), set()
        user = threading.Thread(target=compute)
        user.start()
        for _ in range(20):
            time.sleep(0.003)
            with tape.limit_blas_threads(1):
                time.sleep(0.01)
                seen.add(blas_threads())
            seen.add(blas_threads())
        tape.limit_blas_threads(1)
        time.sleep(0.05)
        computing.clear()
        user.join()
        assert seen == {1, before} and blas_threads() == 1
    assert blas_threads() == before


def test_several_threads_of_python_have_the_results_of_one(threads):
    calls, (x, y) = results(), RNG.standard_normal((2, 300, 2100)).astype(np.float32)
    calls["product"] = lambda: compiled.product(x, y.T)
    wanted, found = {name: call() for name, call in calls.items()}, []

    def run():
        for _ in range(10):
            for name, call in calls.items():
                found.append((name, call()))

    users = [threading.Thread(target=run) for _ in range(3)]
    for user in users:
        user.start()
    for user in users:
        user.join()
    assert len(found) == 30 * len(calls)
    for name, result in found:
        for a, b in zip(arrays(result), arrays(wanted[name]), strict=True):
            np.testing.assert_array_equal(a, b, err_msg=name)


def test_threads_that_went_to_sleep_are_woken(threads, monkeypatch):
    x = np.ones((500, 500), np.float32)
    wanted = compiled.gelu(x)
    woken, wake = [], team._team.awake.set
    monkeypatch.setattr(team._team.awake, "set", lambda: (woken.append(True), wake()))
    for times in range(1, 4):
        team._team.shared[team._ALONE] = 0                 # where other programs took the processors
        deadline = time.monotonic() + 10
        while team._team.awake.is_set() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not team._team.awake.is_set()
        np.testing.assert_array_equal(compiled.gelu(x), wanted)
        assert len(woken) == times


def test_where_sharing_lost_time_the_caller_does_all_parts_for_a_while(threads):
    x, shared = np.ones((500, 500), np.float32), team._team.shared
    wanted = compiled.gelu(x)
    shared[team._ALONE], ticket = team.SECOND // 10_000, shared[team._TICKET]
    for _ in range(1000):
        left = shared[team._ALONE]
        np.testing.assert_array_equal(compiled.gelu(x), wanted)
        assert shared[team._ALONE] < left and shared[team._TICKET] == ticket
        if shared[team._ALONE] <= 0:
            break
    np.testing.assert_array_equal(compiled.gelu(x), wanted)
    assert shared[team._TICKET] > ticket


def test_what_sharing_loses_is_paid_by_as_much_time_alone():
    """With the times as arguments: now, what a task took, and would have taken alone."""
    ms, shared = team.SECOND // 1000, np.zeros(team._LENGTH, np.int64)
    now = 1000 * ms

    def alone_after(*took_and_alone):
        for took, alone in took_and_alone:
            team._learn(shared, now, took, alone)
        found, shared[team._ALONE] = shared[team._ALONE], 0
        return found
    assert alone_after(*[(5 * ms, 8 * ms)] * 100) == 0               # it saves time
    assert alone_after((3 * ms, ms)) == 0                            # lost 2, of which one was saved
    assert alone_after((2 * ms, ms // 2)) == 5 * ms // 2             # and 1.5 more
    assert alone_after(*[(2 * ms, ms), (ms, 2 * ms)] * 100) == 0     # as much won as lost
    shared[team._DEBT], now = 0, now + ms
    for wanted in (2, 4, 8, 16, 32, 32):                             # soon no good again
        shared[team._SPELL], shared[team._SINCE] = max(wanted // 2, 1) * ms, now
        assert alone_after((4 * ms, ms)) == wanted * ms
    now += 65 * ms
    assert alone_after((4 * ms, ms)) == 3 * ms


def test_time_alone_counts_for_what_it_loses():
    shared = np.zeros(team._LENGTH, np.int64)
    shared[team._ALONE] = 1000
    team._spend(shared, 400, 2)
    assert shared[team._ALONE] == 800
    team._spend(shared, 900, 10)
    assert shared[team._ALONE] == -10 and shared[team._SINCE] > 0
    team._spend(shared, 900, 10)
    assert shared[team._ALONE] == -10


def test_inside_a_task_a_kernel_has_one_thread(threads):
    assert tape.parallel_map(lambda _: tape.kernel_threads(), [(0,), (1,)]) == [1, 1]
    assert tape.kernel_threads() == threads


def test_small_work_is_not_shared(threads):
    assert team.team_for(2 * team.EACH - 1)[1] == 1
    assert team.team_for(2 * team.EACH)[1] == 2


def _in_a_child(queue):
    x = np.ones((500, 500), np.float32)
    queue.put((tape.kernel_threads(), float(tape.gelu(x).sum()), float((x @ x).sum())))


def test_more_threads_than_can_be_are_as_many_as_can_be():
    with tape.use_kernels("numba", threads=2 ** 16 + 1):
        assert team.team_for(2 ** 30)[1] == team.MOST
        np.testing.assert_array_equal(compiled.softmax(np.ones((300, 10 ** 4)))[:, 0], 1e-4)


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_forked_child_computes_alone(threads):
    x = np.ones((500, 500), np.float32)
    wanted = float(tape.gelu(x).sum())
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_in_a_child, args=(queue,))
    with team._START:                    # as if another thread started some meanwhile
        child.start()
    assert queue.get(timeout=60) == (1, wanted, 500.0 ** 3)
    child.join(60)
    assert child.exitcode == 0


@team.in_parts()
def _fill_part(size, out, number, parts):
    many = np.empty(size if number == parts - 1 else 1)
    many[0] = 1
    out[number] = many[0]


@team.inner()
def _fill(size, out, shared, parts):
    _fill_part(shared, parts, (size, out))


def test_a_part_that_gets_no_memory_is_an_error(threads):
    out = np.zeros(threads)
    for number in (1, threads):
        with tape.use_kernels("numba", threads=number):
            _fill(10, out, *team.team_for(2 ** 20))
            with pytest.raises(MemoryError):
                _fill(2 ** 58, out, *team.team_for(2 ** 20))
            assert out[:number].all()


@pytest.mark.parametrize("idle", [0, 0.2])
def test_a_program_ends_whatever_its_threads_do(idle):
    code = ("import time, numpy as np, tape; tape.use_kernels('numba', threads=3); "
            f"tape.gelu(np.ones((500, 500), np.float32)); time.sleep({idle}); print('done')")
    for _ in range(3):
        done = run_python("-c", code, timeout=120)
        assert done.returncode == 0 and done.stdout == "done\n", done.stderr


def test_the_number_of_threads():
    with tape.use_kernels("numba", threads=3):
        with tape.use_kernels("numba", threads=2):
            assert tape.kernel_threads() == 2
        assert tape.kernel_threads() == 3
        with tape.use_kernels("numpy"):
            assert tape.kernel_threads() == 1
        assert tape.kernel_threads() == 3
        with tape.use_kernels():
            tape.use_kernels("numba", threads=4)
        assert tape.kernel_threads() == 3
    for wrong in (0, -1, 1.5, True, "2"):
        with pytest.raises(ValueError, match="threads must be a positive integer"):
            tape.use_kernels("numba", threads=wrong)
    with pytest.raises(ValueError, match="NumPy's kernels are limited by tape.limit_blas_threads"):
        tape.use_kernels("numpy", threads=2)


def test_by_default_kernels_have_the_threads_of_the_products():
    code = ("import tape; print(tape.kernel_threads()); tape.limit_blas_threads(1); "
            "print(tape.kernel_threads())")
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_THREADS")}
    environment["TAPE_KERNELS"] = "numba"
    for limit in ("1", "2"):
        done = run_python("-c", code, env={**environment, "OPENBLAS_NUM_THREADS": limit})
        most = min(int(limit), os.cpu_count() or 1)
        assert done.stdout.split() == [str(most), "1"], done.stderr


def test_a_model_trains_alike_with_more_threads(threads):
    idx = RNG.integers(0, 11, (8, 65))
    config = nn.GPTConfig(vocab_size=11, block_size=64, n_layer=2, n_head=2, n_embd=64)
    found = []
    for number in (1, threads, threads):
        with tape.use_kernels("numba", threads=number):
            model = nn.GPT(config, rng=0)
            optimizer = nn.AdamW(model.parameters(), lr=1e-3)
            for _ in range(2):
                optimizer.zero_grad()
                model(idx[:, :-1], targets=idx[:, 1:])[1].backward()
                optimizer.step()
            found.append(model.state_dict())
    for name, array in found[0].items():
        np.testing.assert_allclose(found[1][name], array, atol=2e-4, err_msg=name)
        np.testing.assert_array_equal(found[1][name], found[2][name], err_msg=name)


def test_gradients_through_large_products_are_those_of_numpy(threads):
    arrays = [RNG.standard_normal(shape).astype(np.float32) for shape in ((6, 80, 70), (70, 90))]
    found = []
    for name, number in (("numpy", None), ("numba", threads)):
        with tape.use_kernels(name, number):
            x, y = (leaf(a, np.float32) for a in arrays)
            ((x @ y) ** 2).sum().backward()
            found.append((x.grad, y.grad))
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-2)


def test_the_bits_do_not_depend_on_whether_a_kernel_comes_from_the_cache(tmp_path):
    code = ("import numpy as np, tape; from tape.kernels import numba as compiled; "
            "x, g = np.random.default_rng(0).standard_normal((2, 50, 130), np.float32); "
            "w = np.ones(130, np.float32); _, kept = compiled.layer_norm(x, w, w, 1e-5); "
            "found = *compiled.layer_norm_backward(g, x, w, w, **kept), compiled.softmax(x); "
            "print([a.tobytes().hex() for a in found])")
    cache = {**os.environ, "TAPE_KERNELS": "numba", "NUMBA_CACHE_DIR": str(tmp_path)}
    first, second = run_python("-c", code, env=cache), run_python("-c", code, env=cache)
    assert "compiling kernels" in first.stderr and not second.stderr
    assert first.stdout == second.stdout and first.stdout
