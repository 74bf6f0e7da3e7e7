"""Calls side by side: values, gradients, modes, errors, Ctrl-C; and two trainings in two threads."""

import _thread
import contextvars
import gc
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import nn
import tape
from tape import Tensor

RNG = np.random.default_rng(0)
W, X = RNG.standard_normal((40, 30)), RNG.standard_normal((6, 50, 40))


def leaf(array=W):
    return Tensor(array, requires_grad=True)


def chain(x, w):
    """Several records, of which one is large enough that NumPy lets other threads run."""
    return np.tanh(x @ w).sum(axis=0), (x @ w).mean()


def both(function):
    """What a function of a map gives, by threads and by calls one after the other."""
    return function(tape.parallel_map), function(lambda f, calls: [f(*args) for args in calls])


def test_values_and_gradients_are_those_of_calls_one_after_the_other():
    def gradients(mapped):
        w, x = leaf(), leaf(X)
        y = x * 2                                             # an earlier result that all share
        found = mapped(lambda i: chain(y[i], w), [(i,) for i in range(6)])
        total = sum((a * a).sum() + i * b for i, (a, b) in enumerate(found))
        total.backward()
        return total.item(), w.grad, x.grad
    threaded, plain = both(gradients)
    for a, b in zip(threaded, plain):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)
    for a, b in zip(threaded, both(gradients)[0]):            # and the same bits each time
        np.testing.assert_array_equal(a, b)


def test_it_does_run_in_threads_forward_and_backward():
    """Two calls, and then two rules, that wait for each other would never end one after the other."""
    forward, backward, names = threading.Barrier(2, timeout=20), threading.Barrier(2, timeout=20), []

    def rule(g):
        backward.wait()
        names.append(threading.current_thread().name)
        return g
    meet = tape.primitive(lambda x, /: x * 1, rule, name="meet")

    def call(x):
        forward.wait()
        return meet(x)
    x = leaf(np.ones(3))
    a, b = tape.parallel_map(call, [(x,), (x,)])
    (a * b).sum().backward()
    np.testing.assert_array_equal(x.grad, [2, 2, 2])
    assert len(set(names)) == 2


def test_results_may_be_trees_constants_leaves_and_what_was_there_before():
    w, before = leaf(np.array([1.0, 2.0])), leaf(np.array([3.0, 4.0])) * 2

    def call(factor):
        return {"made": [w * factor, (w * factor).detach()], "leaf": w, "before": before, "text": "a",
                "none": None}
    one, two = tape.parallel_map(call, [(3.0,), (4.0,)])
    assert one["text"] == "a" and one["none"] is None and two["before"] is before and two["leaf"] is w
    assert not one["made"][1].requires_grad
    (one["made"][0] * two["made"][0] + two["before"] * two["leaf"]).sum().backward()
    np.testing.assert_array_equal(w.grad, 24 * w.data + before.data)


@pytest.mark.parametrize("count", [0, 1])
def test_one_call_or_none_leaves_nothing_on_the_tape(count):
    w = leaf(np.ones(2))
    found = tape.parallel_map(lambda: w * 2, [()] * count)
    assert len(found) == count and all(len(tape.show(y).splitlines()) == 3 for y in found)


def test_derivatives_of_derivatives_and_second_walks():
    def derivatives(mapped):
        w = leaf()
        found = mapped(lambda x: (None, (np.tanh(x @ w) ** 2).sum()), [(x,) for x in X])
        slope = tape.grad(sum(b for _, b in found), w, create_graph=True)
        curve = tape.grad((slope * slope).sum(), w)
        return slope.numpy(), curve.numpy()
    for a, b in zip(*both(derivatives)):
        np.testing.assert_allclose(a, b, rtol=1e-10)
    w = leaf()
    a, b = tape.parallel_map(lambda x: chain(x, w)[1], [(X[0],), (X[1],)])
    loss = a * b
    loss.backward(retain_graph=True)
    first = w.grad
    loss.backward()
    np.testing.assert_allclose(w.grad, 2 * first)
    with pytest.raises(RuntimeError, match="already walked and released"):
        loss.backward()


def test_some_of_the_gradients_and_those_of_intermediate_results():
    kept = []

    def call(x, w, v):
        kept.append((x * w).retain_grad())
        return (kept[-1] * v).sum()
    w, v = leaf(np.array([1.0, 2.0])), leaf(np.array([5.0, 6.0]))
    a, b = tape.parallel_map(call, [(2.0, w, v), (3.0, w, v)])
    only = tape.grad(a + 2 * b, v, retain_graph=True)
    np.testing.assert_array_equal(only.numpy(), 8 * w.data)
    assert v.grad is None and kept[0].grad is None
    (a + 2 * b).backward()
    assert sorted(np.asarray(t.grad)[0] for t in kept) == [5, 10]


def test_a_branch_that_uses_a_record_of_another_is_walked_all_the_same():
    w, box, ready = leaf(np.array([3.0])), [], threading.Event()

    def call(i):
        if i == 0:
            box.append(w * w)
            ready.set()
        assert ready.wait(20)
        return box[0] * (i + 1)
    a, b = tape.parallel_map(call, [(0,), (1,)])
    (a + b).sum().backward()
    np.testing.assert_array_equal(w.grad, [18.0])


def test_results_may_be_walked_one_by_one():
    w = leaf(np.array([1.0, 2.0]))
    a, b, c = tape.parallel_map(lambda x: (w * w * x).sum(), [(1.0,), (10.0,), (100.0,)])
    a.backward()
    np.testing.assert_array_equal(w.grad, [2, 4])
    (b + c).backward()
    np.testing.assert_array_equal(w.grad, [222, 444])
    with pytest.raises(RuntimeError, match="already walked and released"):
        (a + b).backward()


def test_what_somebody_kept_of_a_branch_is_walked_with_it():
    w, kept = leaf(np.array([1.0, 2.0])), []

    def call(x):
        y = w * x
        kept.append(y * y)                          # behind no result
        return y.sum()
    a, b = tape.parallel_map(call, [(2.0,), (3.0,)])
    (a + b + kept[0].sum() + kept[1].sum()).backward()
    np.testing.assert_array_equal(w.grad, 5 + 2 * w.data * (4 + 9))


def test_modes_and_settings_are_those_of_the_caller():
    variable = contextvars.ContextVar("variable", default=0)
    variable.set(7)
    with tape.no_grad(), np.errstate(divide="raise"):
        found = tape.parallel_map(lambda w: ((w * 2).requires_grad, np.geterr()["divide"],
                                             variable.get()), [(leaf(),)] * 3)
    assert found == [(False, "raise", 7)] * 3
    with tape.record_lines():
        a, b = tape.parallel_map(lambda w: w * 2, [(leaf(),)] * 2)
    assert all("test_parallel_map.py" in y._record.parents[0].line for y in (a, b))


def test_in_strict_mode_a_change_of_what_a_branch_keeps_is_named():
    x, w = np.ones((1, 3)), leaf(np.ones((1, 3)))
    gives = tape.primitive(lambda a, /: x, lambda g, out: g * out, name="gives")
    with tape.strict():
        a, b, c, d = tape.parallel_map(lambda w: gives(w).sum(), [(w,)] * 4)
    (a + b).backward()
    np.testing.assert_array_equal(w.grad, np.full((1, 3), 2.0))
    x += 1
    with pytest.raises(RuntimeError, match="gives: its out, of shape .*, was changed in place"):
        (c + d).backward()


def test_a_parameter_that_is_changed_between_is_noticed_in_every_branch():
    for shared in (True, False):
        w = leaf()
        results = tape.parallel_map(lambda x: (x @ w ** 2).sum(), [(x,) for x in X],
                                    [w] if shared else ())
        w.data[0] = 1
        for result in results:
            with pytest.raises(RuntimeError, match="power.* was changed in place"):
                result.backward()


def test_leaves_that_are_named_are_not_read_for_a_checksum(monkeypatch):
    read = []
    monkeypatch.setattr(tape.mutation, "checksum", lambda array: read.append(array.shape))
    w = leaf(np.ones((400, 400)))
    tape.parallel_map(lambda x: x @ w, [(np.ones((400, 400)),)] * 4, [w])
    assert read == []


def test_calls_inside_of_calls_and_those_that_are_counted_run_in_order():
    thread = threading.get_ident

    def outer(i):
        return thread(), tape.parallel_map(thread_of, [(j,) for j in range(3)])

    def thread_of(j):
        return thread()
    for own, inside in tape.parallel_map(outer, [(i,) for i in range(4)]):
        assert inside == [own] * 3
    w = leaf()
    with tape.measure() as cost:
        found = tape.parallel_map(lambda x: (thread(), x @ w), [(x,) for x in X])
    assert [one for one, _ in found] == [thread()] * 6
    assert cost.flops == 6 * 2 * 50 * 40 * 30


def test_the_error_of_the_first_call_that_failed_is_raised_when_all_have_ended():
    ended = []

    def call(i):
        if i % 2:
            raise LookupError(f"call {i}")
        time.sleep(0.05)
        ended.append(i)
    with pytest.raises(LookupError, match="call 1") as raised:
        tape.parallel_map(call, [(i,) for i in range(5)])
    assert sorted(ended) == [0, 2, 4] and raised.value.__context__ is None
    assert tape.parallel_map(lambda i: i, [(1,), (2,)]) == [1, 2]          # the threads go on


def test_an_error_in_a_rule_leaves_the_gradients_as_they_were():
    def rule(g):
        raise LookupError("in the rule")
    bad = tape.primitive(lambda x, /: x * 1, rule, name="bad")
    w = leaf(np.ones(3))
    a, b = tape.parallel_map(lambda f: f(w).sum(), [(np.exp,), (bad,)])
    with pytest.raises(LookupError, match="in the rule"):
        (a + b).backward()
    assert w.grad is None


@pytest.fixture
def interruptible():
    """Ctrl-C is heard, also where what runs the tests was started without it, as by nohup."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_is_raised_when_the_other_threads_have_ended(interruptible):
    ended, begun = [], threading.Event()

    def call(i):
        if i == 0:
            begun.wait(20)
            _thread.interrupt_main()
            while True:
                time.sleep(0.001)
        begun.set()
        time.sleep(0.1)
        ended.append(i)
    with pytest.raises(KeyboardInterrupt):
        tape.parallel_map(call, [(0,), (1,)])
    assert ended == [1]


def test_ctrl_c_while_the_caller_waits_is_raised_afterwards(interruptible):
    ended = []

    def call(i):
        if i:
            time.sleep(0.05)
            _thread.interrupt_main()
            time.sleep(0.1)
            ended.append(i)
    with pytest.raises(KeyboardInterrupt):
        tape.parallel_map(call, [(0,), (1,)])
    assert ended == [1]


def test_nothing_is_left_of_the_tapes_once_the_results_are_gone():
    w = leaf()
    results = tape.parallel_map(lambda x: chain(x, w)[1], [(x,) for x in X])
    records = [weakref.ref(y._record.parents[0]) for y in results]
    gc.disable()
    try:
        assert None not in [ref() for ref in records]
        sum(results).backward()                              # the walk lets go of what is behind
        assert [ref() for ref in records] == [None] * 6
        again = tape.parallel_map(lambda x: chain(x, w)[1], [(x,) for x in X])
        records = [weakref.ref(y._record.parents[0]) for y in again]
        del again
        assert [ref() for ref in records] == [None] * 6
    finally:
        gc.enable()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a child process that has no threads of its parent")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_process_starts_threads_of_its_own():
    tape.parallel_map(abs, [(1,), (2,)])
    child = os.fork()
    if not child:
        os._exit(0 if tape.parallel_map(abs, [(-1,), (-2,)]) == [1, 2] else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_two_trainings_in_two_threads_are_those_of_one_after_the_other():
    def trained(seed):
        rng = np.random.default_rng(seed)
        model = nn.GPT(nn.GPTConfig(11, 8, 2, 2, 16, dropout=0.1), rng=seed)
        optimizer, losses = nn.AdamW(model.parameters(), lr=1e-2), []
        for _ in range(12):
            idx = rng.integers(0, 11, (8, 8))
            _, loss = model(idx, idx)
            optimizer.zero_grad()
            loss.backward()
            nn.clip_grad_norm(model.parameters(), 1.0)
            optimizer.step()
            losses.append(loss.item())
        return losses, model.state_dict()
    wanted = [trained(seed) for seed in range(3)]
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(trained, range(3)))
    for (losses, state), (own, other) in zip(wanted, found):
        assert losses == own
        for name, array in state.items():
            np.testing.assert_array_equal(array, other[name], err_msg=name)


def test_the_error_of_a_call_keeps_no_tape_alive():
    kept = []

    def failing(fails):
        y = np.tanh(X @ leaf())
        kept.append(weakref.ref(y._record))
        if fails:
            raise ValueError("of the second call")
        return y
    gc.collect()
    gc.disable()
    try:
        try:
            tape.parallel_map(failing, [(False,), (True,)])
        except ValueError:
            pass
        assert [record() for record in kept] == [None, None]
    finally:
        gc.enable()


def test_a_thread_that_outlives_the_main_thread_goes_on():
    code = """
import threading, time
import tape

def work():
    threading.main_thread().join()
    time.sleep(0.1)                     # by now Python has closed its pools of threads
    w = tape.Tensor([1.0, 2.0], requires_grad=True)
    a, b = tape.parallel_map(lambda x: (w * x).sum(), [(3.0,), (4.0,)])
    (a * b).backward()
    try:
        tape.parallel_map(lambda x: 1 / x, [(1,), (0,)])
    except ZeroDivisionError:
        print(w.grad)

threading.Thread(target=work).start()
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (result.stdout, result.stderr) == ("[72. 72.]\n", "")


def test_gradients_of_half_precision_are_added_up_in_single():
    def picked(mapped):
        w = leaf(np.ones(2, np.float16))
        # 80,000 and -60,000 for the first element: float16 ends at 65,504, but not the sum of both.
        calls = [(np.float16([40000, 1]),), (np.float16([-30000, 1]),)]
        a, b = mapped(lambda x: (w * x)[0] + (w * x)[0], calls)
        tape.stack([a, b]).backward(gradient=np.ones(2, np.float16))
        return w.grad
    with np.errstate(all="ignore"):                                   # of the results themselves
        threads, plain = both(picked)
    assert threads.dtype == np.float16
    np.testing.assert_array_equal(threads, [20000, 0])
    np.testing.assert_array_equal(plain, [20000, 0])


def test_a_result_that_is_deleted_frees_its_tape():
    w, kept = leaf(), []

    def called(x):
        y = np.tanh(x @ w)
        kept.append(weakref.ref(y._record))
        return y.sum()
    a, b, c = tape.parallel_map(called, [(X,), (X,), (X,)])
    del a
    assert [record() is None for record in kept].count(True) == 1
    (b + c).backward()
    expected = leaf()
    (np.tanh(X @ expected).sum() * 2).backward()
    np.testing.assert_allclose(w.grad, expected.grad, rtol=1e-12)
