"""`tape.WorkerProcesses`: what processes compute is what the program would have computed itself."""

import copy
import gc
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
import warnings

import numpy as np
import pytest

import nn
import tape
from tape import Tensor
from tests.checks import run_python

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes need Linux")
X = np.random.default_rng(0).standard_normal((4, 50, 30))


def leaf(array):
    return Tensor(array, requires_grad=True)


class Layer:
    """A function with a state: leaves, numbers, a generator."""

    def __init__(self):
        rng = np.random.default_rng(1)
        self.w, self.b = leaf(rng.standard_normal((30, 20))), leaf(rng.standard_normal(20))
        self.unused, self.scale, self.rng = leaf(np.ones(3)), 1.0, None

    @property
    def leaves(self):
        return [self.w, self.b, self.unused]

    def __call__(self, x):
        if self.rng is not None:
            x = x * self.rng.random()
        y = np.tanh(x @ self.w + self.b) * self.scale
        return {"rows": y, "more": [(y ** 2).mean(), None, os.getpid()]}


@pytest.fixture
def layer():
    return Layer()


@pytest.fixture
def processes(layer):
    found = tape.WorkerProcesses(layer)
    yield found
    found.close()


def gradients(mapped, layer, calls=X):
    """Values and gradients of a sum of what the calls return."""
    found = mapped([(x,) for x in calls])
    total = sum((i + 1) * one["more"][0] + one["rows"][0].sum() for i, one in enumerate(found))
    for x in layer.leaves:
        x.grad = None
    total.backward()
    return [total.numpy(), found[-1]["rows"].numpy(), *(x.grad for x in layer.leaves)]


def in_processes(processes, layer):
    return lambda calls: processes.map(calls, layer.leaves)


def in_threads(layer):
    return lambda calls: tape.parallel_map(layer, calls, layer.leaves)


def assert_same_bits(found, wanted):
    for a, b in zip(found, wanted, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            np.testing.assert_array_equal(a, b)


def test_values_and_gradients_have_the_bits_of_those_in_threads(processes, layer):
    wanted = gradients(in_threads(layer), layer)
    for _ in range(3):
        assert_same_bits(gradients(in_processes(processes, layer), layer), wanted)
    assert layer.unused.grad is None


def test_the_calls_run_in_other_processes_but_the_first(processes, layer):
    found = [one["more"][2] for one in processes.map([(x,) for x in X], layer.leaves)]
    again = [one["more"][2] for one in processes.map([(x,) for x in X[:3]], layer.leaves)]
    assert found[0] == os.getpid() and len({*found}) == 4 and again == found[:3]


@pytest.mark.parametrize("change", [
    lambda layer: layer.w.data.__isub__(0.5),
    lambda layer: setattr(layer.w, "data", layer.w.data * 2),
    lambda layer: layer.w.data.__setitem__(0, 7.0),
    lambda layer: setattr(layer, "scale", 3.0),
    lambda layer: setattr(layer, "w", leaf(np.ones((30, 20)))),
    lambda layer: setattr(layer, "b", leaf(np.ones(1))),
    lambda layer: setattr(layer.b, "requires_grad", False),
    lambda layer: setattr(layer, "rng", np.random.default_rng(3)),
], ids=["in place", "new array", "element", "number", "new leaf", "new shape", "frozen", "generator"])
def test_what_the_program_changes_is_seen(change):
    found = []
    for mapped in (in_processes, None):
        layer = Layer()
        processes = tape.WorkerProcesses(layer)
        run = in_processes(processes, layer) if mapped else lambda calls: [
            copy.deepcopy(layer)(*args) for args in calls]
        run([(x,) for x in X])
        change(layer)
        found.append([one["rows"].numpy() for one in run([(x,) for x in X])])
        processes.close()
    assert_same_bits(*found)


def test_an_array_that_the_program_holds_stays_that_of_the_leaf(layer):
    """An optimiser may have asked for the arrays before the processes were there."""
    array = layer.w.data
    processes = tape.WorkerProcesses(layer)
    for _ in range(3):
        found = processes.map([(x,) for x in X], layer.leaves)
        for x, one in zip(X, found):
            np.testing.assert_array_equal(one["rows"].numpy(), np.tanh(x @ array + layer.b.numpy()))
        array -= 0.1
        assert layer.w.data is array
    processes.close()


@pytest.mark.parametrize("change", [lambda w: w.data.__iadd__(1), lambda w: w.data.__setitem__(0, 7.0)])
def test_a_change_between_forward_and_backward_is_refused(processes, layer, change):
    processes.map([(x,) for x in X], layer.leaves)
    calls = [(Tensor(X[0]),), (leaf(X[1]),)]               # the tape of the second alone keeps w
    found = processes.map(calls, layer.leaves)
    change(layer.w)
    with pytest.raises(RuntimeError, match=r"of shape \(30, 20\), was changed in place after"):
        (found[0]["more"][0] + found[1]["more"][0]).backward()
    first, second = processes.map(calls, layer.leaves)
    layer.w.data = layer.w.data + 1                        # a new array leaves the tape its own
    processes.map(calls, layer.leaves)
    (first["more"][0] + second["more"][0]).backward()
    wanted = Layer()
    wanted.w.data = layer.w.data - 1
    sum(wanted(x)["more"][0] for x in X[:2]).backward()
    np.testing.assert_allclose(layer.w.grad, wanted.w.grad, rtol=1e-9)


def test_arguments_get_gradients(processes, layer):
    def found(mapped):
        x, y = leaf(X[0]), leaf(X[1])
        first, second = mapped([(x * 2,), (y * 3,)])
        (first["rows"].sum() + (second["rows"] * second["more"][0]).sum()).backward()
        return x.grad, y.grad
    assert_same_bits(found(in_processes(processes, layer)), found(in_threads(layer)))


def test_several_tapes_at_once_in_any_order(processes, layer):
    first = processes.map([(x,) for x in X[:2]], layer.leaves)
    second = processes.map([(x,) for x in X[2:]], layer.leaves)
    unused = processes.map([(x,) for x in X[2:]], layer.leaves)
    total = second[1]["more"][0] + second[0]["more"][0]
    total.backward()
    after = layer.w.grad.copy()
    del unused
    (first[0]["more"][0] * first[1]["more"][0]).backward()
    wanted = Layer()
    sum(wanted(x)["more"][0] for x in X[2:]).backward()
    np.testing.assert_allclose(after, wanted.w.grad, rtol=1e-12)
    (wanted(X[0])["more"][0] * wanted(X[1])["more"][0]).backward()
    np.testing.assert_allclose(layer.w.grad, wanted.w.grad, rtol=1e-12)


def test_the_modes_of_the_caller_hold(processes, layer):
    with tape.no_grad():
        found = processes.map([(x,) for x in X[:2]], layer.leaves)
    assert not any(one["rows"].requires_grad for one in found)
    with tape.use_kernels("numpy"), np.errstate(all="raise"):
        with pytest.raises(FloatingPointError):
            processes.map([(X[0],), (X[1] * 1e308,)], layer.leaves)
    with tape.measure() as measured:
        found = processes.map([(x,) for x in X[:2]], layer.leaves)
    assert found[1]["more"][2] == os.getpid() and measured


class Wrong(Layer):
    def __call__(self, x):
        if not isinstance(x, float):
            return super().__call__(x)
        if x == 1:
            raise IndexError("of the function")
        if x == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        if x == 3:
            return threading.Lock()
        if x == 4:
            raise Odd("a", "b")
        if x == 5:
            warnings.warn("of a worker")
        return np.ones(1)


class Odd(Exception):
    def __init__(self, one, two):
        super().__init__(one)


@pytest.mark.parametrize("number, kind, message", [
    (1.0, IndexError, "of the function"), (2.0, RuntimeError, "ended with exit code -9"),
    (3.0, TypeError, "returns must be of a kind that can be sent"), (4.0, RuntimeError, "Odd: a")])
def test_errors_reach_the_caller_and_the_next_call_works(number, kind, message):
    layer = Wrong()
    processes = tape.WorkerProcesses(layer)
    wanted = gradients(in_threads(layer), layer)
    for _ in range(2):
        with pytest.raises(kind, match=message) as error:
            processes.map([(X[0],), (number,)], layer.leaves)
        assert number == 2 or "Traceback" in str(error.value.__cause__)
    with pytest.raises(TypeError, match="got str"):        # of the first call, which runs here
        processes.map([("text",), (X[0],)], layer.leaves)
    assert_same_bits(gradients(in_processes(processes, layer), layer), wanted)
    processes.close()


def test_warnings_reach_the_caller():
    layer = Wrong()
    processes = tape.WorkerProcesses(layer)
    with pytest.warns(UserWarning, match="of a worker"):
        processes.map([(0.0,), (5.0,)], layer.leaves)
    processes.close()


def test_a_tape_is_walked_once_and_not_recorded(processes, layer):
    def total():
        return sum(one["more"][0] for one in processes.map([(x,) for x in X[:2]], layer.leaves))
    loss = total()
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="can be walked once"):
        loss.backward()
    loss = total()
    loss.backward()
    with pytest.raises(RuntimeError, match="already walked and released"):
        loss.backward()
    with pytest.raises(RuntimeError, match="cannot be differentiated again"):
        tape.grad(total(), layer.w, create_graph=True)
    loss = total()
    processes.close()
    with pytest.raises(RuntimeError, match="Run the forward once more"):
        loss.backward()


OUTSIDE = leaf(np.ones(20))


class UsesAnother(Layer):
    def __call__(self, x):
        return super().__call__(x)["rows"].sum() * OUTSIDE.sum()


def test_leaves_that_are_not_shared_are_refused(layer):
    hidden = Layer()
    with pytest.raises(TypeError, match="not among the leaves that are shared"):
        tape.WorkerProcesses(hidden).map([(x,) for x in X], hidden.leaves[:1])
    outside = UsesAnother()
    found = tape.WorkerProcesses(outside).map([(x,) for x in X[:2]], outside.leaves)
    with pytest.raises(RuntimeError, match="neither shared nor an argument"):
        (found[0] + found[1]).backward()


def test_functions_and_classes_without_a_name_are_inherited_but_no_closures():
    class Local(Layer):
        def __call__(self, x):
            return self.act(super().__call__(x)["rows"])
    local = Local()
    local.act = lambda x: x * 2
    processes = tape.WorkerProcesses(local)
    for _ in range(2):
        for x, y in zip(X, processes.map([(x,) for x in X], local.leaves)):
            np.testing.assert_array_equal(y.numpy(), local(x).numpy())
        local.act = lambda x: x * 3                        # new: the processes are started anew
    factor = 4
    local.act = lambda x: x * factor
    with pytest.raises(TypeError, match="uses factor of the function around it"):
        processes.map([(x,) for x in X], local.leaves)

    class Closing(Layer):
        def __call__(self, x):
            return super().__call__(x)["rows"] * factor
    with pytest.raises(TypeError, match="uses factor of the function around it"):
        tape.WorkerProcesses(Closing()).map([(x,) for x in X])
    processes.close()


def test_what_cannot_be_sent_is_refused(layer):
    layer.lock = threading.Lock()
    with pytest.raises(TypeError, match="cannot pickle.*in threads, processes=False"):
        tape.WorkerProcesses(layer).map([(x,) for x in X], layer.leaves)


def test_two_threads_may_use_the_same_processes(processes, layer):
    wanted = gradients(in_threads(layer), layer)[:2]
    found = {}

    def work(name):
        for _ in range(5):
            results = processes.map([(x,) for x in X], layer.leaves)
            total = sum((i + 1) * r["more"][0] + r["rows"][0].sum() for i, r in enumerate(results))
            grad = tape.grad(total, layer.w)
            found.setdefault(name, []).append((total.item(), grad.numpy()))
    threads = [threading.Thread(target=work, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for results in found.values():
        assert len(results) == 5
        for total, grad in results:
            assert total == wanted[0]
            np.testing.assert_array_equal(grad, found[0][0][1])


def test_processes_do_not_keep_the_files_of_the_program_open(layer, tmp_path):
    """A lock would stay, and a reader of a pipe would wait for more."""
    fcntl = pytest.importorskip("fcntl")
    processes = tape.WorkerProcesses(layer)
    with open(tmp_path / "lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        reading, writing = os.pipe()
        processes.map([(x,) for x in X[:3]], layer.leaves)
    with open(tmp_path / "lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(writing)
    assert os.read(reading, 1) == b""
    os.close(reading)
    processes.map([(x,) for x in X[:3]], layer.leaves)
    processes.close()


def children():
    return {process.pid for process in multiprocessing.active_children()}


def test_processes_end_with_the_object_and_not_before_its_tapes(layer):
    before = children()
    processes = tape.WorkerProcesses(layer)
    found = processes.map([(x,) for x in X[:2]], layer.leaves)
    del processes
    gc.collect()
    assert len(children() - before) == 1
    (found[0]["more"][0] + found[1]["more"][0]).backward()
    assert layer.w.grad is not None
    del found
    gc.collect()
    deadline = time.monotonic() + 10
    while children() - before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not children() - before


PROGRAM = """
import os, signal, sys, time, numpy as np, nn
model = nn.GPT(nn.GPTConfig(7, 5, 1, 2, 8), rng=0)
parallel = nn.DataParallel(model, 3, processes=True)
idx = np.arange(30).reshape(6, 5) % 7
for _ in range(3):
    parallel(idx, idx)[1].backward()
print(*(worker.process.pid for worker in parallel._pool._workers), flush=True)
"""


@pytest.mark.parametrize("end", ["", "os.kill(os.getpid(), signal.SIGKILL)", "os._exit(3)", "1 / 0",
                                 "sys.exit(4)", "signal.raise_signal(signal.SIGTERM)",
                                 "signal.raise_signal(signal.SIGINT)"])
def test_processes_end_with_the_program_however_it_ends(end):
    done = run_python("-W", "error", "-c", PROGRAM + end)     # it returns when nobody has its output
    pids = [int(word) for word in done.stdout.split()]
    codes = {"": 0, "os._exit(3)": 3, "1 / 0": 1, "sys.exit(4)": 4}
    assert len(pids) == 2 and done.returncode == codes.get(end, done.returncode), done.stderr
    deadline = time.monotonic() + 10
    while any(os.path.exists(f"/proc/{pid}") for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.01)
    for pid in pids:
        assert not os.path.exists(f"/proc/{pid}") or b"Z" in open(f"/proc/{pid}/stat", "rb").read()


def test_a_daemon_is_told_to_use_threads():
    code = ("import multiprocessing, tape\n"
            "def work(_):\n"
            "    try: tape.WorkerProcesses(tape.mul).map([(1.0, 2.0), (3.0, 4.0)])\n"
            "    except RuntimeError as error: return str(error)\n"
            "print(multiprocessing.get_context('fork').Pool(1).map(work, [0]))")
    assert "Compute in threads, processes=False" in run_python("-c", code).stdout


def test_copies_start_processes_of_their_own(layer):
    processes = tape.WorkerProcesses(layer)
    wanted = gradients(in_processes(processes, layer), layer)
    for again in (copy.deepcopy(processes), pickle.loads(pickle.dumps(processes))):
        assert again.function is not layer
        assert_same_bits(gradients(in_processes(again, again.function), again.function), wanted)
        again.close()
    processes.close()


def test_elsewhere_than_on_linux_threads_are_named(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(RuntimeError, match="need Linux.*processes=False"):
        nn.DataParallel(nn.Linear(2, 2, rng=0), processes=True)


class Noisy(Layer):
    def __init__(self):
        super().__init__()
        self.rng = np.random.default_rng(5)

    def __call__(self, x):
        if isinstance(x, str):
            raise ValueError(x)
        return super().__call__(x)


def test_a_generator_that_is_set_back_gives_the_same_numbers_again():
    layer = Noisy()
    processes = tape.WorkerProcesses(layer)
    start, found = layer.rng.bit_generator.state, []
    for _ in range(2):
        layer.rng.bit_generator.state = start
        found.append(processes.map([(x,) for x in X], layer.leaves)[3]["rows"].numpy())
    layer.rng.bit_generator.state = start
    with pytest.raises(ValueError, match="wrong"):          # before the program has drawn
        processes.map([("wrong",), (X[1],)], layer.leaves)
    found.append(processes.map([(x,) for x in X], layer.leaves)[3]["rows"].numpy())
    np.testing.assert_array_equal(found[1], found[0])
    np.testing.assert_array_equal(found[2], found[0])
    processes.close()


def test_values_that_the_program_goes_back_to_stay_what_they_are(processes, layer):
    """As those of before an evaluation with the means of the weights."""
    wanted = gradients(in_processes(processes, layer), layer)
    before, kept = layer.w.data, layer.w.data.copy()
    layer.w.data = np.zeros_like(kept)
    processes.map([(x,) for x in X], layer.leaves)
    np.testing.assert_array_equal(before, kept)
    layer.w.data = before
    assert_same_bits(gradients(in_processes(processes, layer), layer), wanted)


def test_what_the_program_recorded_itself_keeps_the_values(processes, layer):
    processes.map([(x,) for x in X], layer.leaves)
    x, y = leaf(X[0]), leaf(X[0])
    recorded = layer(x)["rows"].sum()
    Layer()(y)["rows"].sum().backward()
    layer.w.data = np.zeros((30, 20))
    processes.map([(x,) for x in X], layer.leaves)
    recorded.backward()
    np.testing.assert_array_equal(x.grad, y.grad)


class Box:
    def __init__(self, value):
        self.value = value


class Boxed(Layer):
    def __call__(self, x):
        return super().__call__(x.value)["rows"] if isinstance(x, Box) else Box(self.w * 2)


class Late:
    """Something that a signal's handler interrupts while it is sent."""

    def __reduce__(self):
        raise TimeoutError("my alarm")


def test_an_error_that_a_handler_raises_meanwhile_is_its_own(processes, layer):
    for _ in range(2):
        with pytest.raises(TimeoutError, match="my alarm"):
            processes.map([(X[0],), (X[1],), (Late(),)], layer.leaves)
    layer.late = Late()
    with pytest.raises(TimeoutError, match="my alarm"):
        tape.WorkerProcesses(layer).map([(x,) for x in X], layer.leaves)


def test_tensors_in_other_objects_would_lose_their_gradients(layer):
    layer = Boxed()
    processes = tape.WorkerProcesses(layer)
    x = leaf(X[0])
    for argument in (Box(x * 2), X[1]):
        with pytest.raises(TypeError, match="may stand in lists, tuples and dicts"):
            processes.map([(Box(x),), (argument,)], layer.leaves)
    with pytest.raises(TypeError, match="arguments must be of a kind that can be sent"):
        processes.map([(Box(x),), (lambda: 0,)], layer.leaves)
    processes.close()


def test_arguments_that_cannot_be_sent_leave_nobody_waiting(processes, layer):
    found = processes.map([(x,) for x in X], layer.leaves)
    with pytest.raises(TypeError, match="cannot pickle"):
        processes.map([(X[0],), (X[1],), (threading.Lock(),)], layer.leaves)
    with pytest.raises(RuntimeError, match="Run the forward once more"):
        sum(one["more"][0] for one in found).backward()


class Second(Layer):
    def __call__(self, x):
        return super().__call__(x)["more"][0] if x.any() else None


def interrupted(run, number):
    """Whether it was, by a KeyboardInterrupt at a line of `tape.processes`, by its number."""
    left, before = [number], sys.gettrace()

    def trace(frame, event, _):
        if "processes" + os.sep not in frame.f_code.co_filename or frame.f_code.co_name == "map":
            return None          # `map` has a line where no signal comes, as it lets go of a lock
        left[0] -= event == "line"
        if left[0] == 0:
            raise KeyboardInterrupt
        return trace
    try:
        sys.settrace(trace)
        run()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    return False


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interrupt_at_any_line_leaves_nobody_waiting_and_no_wrong_value():
    layer, number = Second(), 0
    wanted = tape.grad(layer(X[1]), layer.w).numpy()
    processes = tape.WorkerProcesses(layer)

    def run():                             # one tape, so that it is walked in this thread
        layer.w.grad = None
        processes.map([(X[0] * 0,), (X[1],)], layer.leaves)[1].backward()
    run()
    while True:
        number += 1
        if number % 2:
            held = layer.w.data            # so the processes are started anew
            layer.w.data = held.copy()
        if not interrupted(run, number):
            break
        run()
        np.testing.assert_allclose(layer.w.grad, wanted, rtol=1e-12)
    assert number > 50
    processes.close()


def in_a_fork(work):
    """Run it in a process that is forked; its exit code."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            code = work() or 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
def test_a_process_that_the_program_forks_has_its_own_leaves_and_workers(processes, layer):
    wanted = gradients(in_processes(processes, layer), layer)
    found = processes.map([(x,) for x in X], layer.leaves)
    kept, array = layer.w.numpy().copy(), layer.w.data

    def work():
        array[...] += 1
        seen = processes.map([(x,) for x in X], layer.leaves)
        expected = np.tanh(X[3] @ (kept + 1) + layer.b.numpy())
        processes.close()
        return not (layer.w.data is array and (seen[3]["rows"].numpy() == expected).all())
    assert in_a_fork(work) == 0
    np.testing.assert_array_equal(layer.w.numpy(), kept)
    sum(one["more"][0] for one in found).backward()
    assert_same_bits(gradients(in_processes(processes, layer), layer), wanted)


def test_a_program_without_an_output_computes():
    code = ("import sys; sys.stdout = None\n"
            "import tape\n"
            "assert [x.item() for x in tape.WorkerProcesses(tape.mul).map([(1., 2.), (3., 4.)])] "
            "== [2, 12]")
    done = run_python("-c", code)
    assert done.returncode == 0, done.stderr


class Scaled(Tensor):
    """A leaf with an attribute."""


class Scales:
    def __init__(self):
        self.w = Scaled(np.ones(3), requires_grad=True)
        self.w.factor = 2.0

    def __call__(self, x):
        return x * self.w * self.w.factor, self.w.grad


def test_attributes_of_leaves_are_seen_and_no_old_gradients():
    function = Scales()
    function.w.grad = np.ones(3)
    processes = tape.WorkerProcesses(function)
    for factor in (2.0, 3.0):
        function.w.factor = factor
        found, gradient = processes.map([(1.0,), (1.0,)], [function.w])[1]
        np.testing.assert_array_equal(found.numpy(), np.full(3, factor))
        assert gradient is None
    processes.close()


class Unreadable(Layer):
    """It can be written for another process, and not be read there, as long as it is broken."""

    broken = False

    def __setstate__(self, state):
        if state.get("broken"):
            raise ValueError("broken")
        self.__dict__.update(state)


def test_what_a_process_could_not_read_is_sent_again():
    layer = Unreadable()
    processes = tape.WorkerProcesses(layer)
    for scale, broken in ((1.0, False), (2.0, True), (2.0, True), (2.0, False)):
        layer.scale, layer.broken = scale, broken
        if broken:
            with pytest.raises(ValueError, match="broken"):
                processes.map([(x,) for x in X[:2]], layer.leaves)
        else:
            _, second = processes.map([(x,) for x in X[:2]], layer.leaves)
            np.testing.assert_array_equal(second["rows"].numpy(), layer(X[1])["rows"].numpy())
    processes.close()
