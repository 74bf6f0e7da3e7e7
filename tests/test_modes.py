"""Recording on and off: no_grad, enable_grad and record_lines as context managers and decorators,
with generators, coroutines and threads; and where a record says it was made.
"""

import asyncio
import contextvars
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import tape
from tape import enable_grad, no_grad
from tape.grad_mode import DEFAULT, modes
from tests.checks import leaf

ROOT = Path(__file__).resolve().parents[1]


def records() -> bool:
    """Whether an operation that runs now leaves a record."""
    return (leaf(1.0) * 2).requires_grad


# --- context manager ---


def test_nothing_is_recorded_inside():
    x = leaf(1.0)
    with no_grad():
        y = x * 2
    assert not y.requires_grad and y.is_leaf
    assert (x * 2).requires_grad


def test_nested_modes():
    with no_grad():
        assert not records()
        with enable_grad():
            assert records()
            with no_grad():
                assert not records()
            assert records()
        assert not records()
    assert records()


def test_one_object_entered_twice():
    mode = no_grad()
    with mode:
        with enable_grad():
            with mode:
                assert not records()
            assert records()
        assert not records()
    assert records()
    with mode:
        assert not records()


def test_an_exception_restores_the_mode():
    with pytest.raises(KeyError):
        with no_grad():
            raise KeyError
    assert records()

    @no_grad()
    def fails():
        raise KeyError
    with pytest.raises(KeyError):
        fails()
    assert records()


def test_backward_works_under_no_grad():
    x = leaf(3.0)
    y = x * x
    with no_grad():
        slope = tape.grad(y, x, create_graph=True)
        y.backward()
    assert x.grad == 6.0 and tape.grad(slope, x).item() == 2.0


# --- decorator ---


@pytest.mark.parametrize("decorate", [no_grad, no_grad()], ids=["bare", "called"])
def test_decorators(decorate):
    @decorate
    def function(a, *, b):
        """Its docstring."""
        return a, b, records()
    assert function(1, b=2) == (1, 2, False)
    assert function.__name__ == "function" and function.__doc__ == "Its docstring."
    assert records()


def test_decorated_methods():
    class Model:
        @no_grad
        def one(self):
            return self, records()

        @staticmethod
        @no_grad()
        def two():
            return records()
    model = Model()
    assert model.one() == (model, False)
    assert Model.two() is False


def test_recursion():
    seen = []

    @no_grad()
    def down(n):
        seen.append(records())
        if n:
            up(n - 1)
        seen.append(records())

    @enable_grad()
    def up(n):
        seen.append(records())
        down(n)
        seen.append(records())
    down(2)
    assert seen == [False, True, False, True, False, False, True, False, True, False]
    assert records()


# --- generators ---


@pytest.mark.parametrize("decorate", [no_grad, no_grad()], ids=["bare", "called"])
def test_a_generator_holds_the_mode_only_while_it_runs(decorate):
    @decorate
    def items():
        for _ in range(3):
            yield records()
    seen = []
    for inside in items():
        seen.append((inside, records()))
    assert seen == [(False, True)] * 3
    assert records()


def test_generators_that_take_turns():
    @no_grad
    def off():
        while True:
            yield records()

    @enable_grad
    def on():
        while True:
            yield records()
    a, b = off(), on()
    for outside in (True, False, True):
        with (enable_grad if outside else no_grad)():
            assert [next(a), next(b), next(a), next(b), next(b)] == [False, True, False, True, True]
            assert records() is outside


def test_send_throw_close_and_return_of_a_generator():
    log = []

    @no_grad()
    def conversation():
        received = yield "first"
        log.append((received, records()))
        try:
            yield "second"
        except KeyError as error:
            log.append((error.args[0], records()))
        try:
            yield "third"
        finally:
            log.append(("closed", records()))
    g = conversation()
    assert next(g) == "first"
    assert g.send("hello") == "second"
    assert g.throw(KeyError("oops")) == "third"
    g.close()
    assert log == [("hello", False), ("oops", False), ("closed", False)]
    assert records()

    @no_grad
    def returns():
        yield 1
        return 2

    def outer():
        assert (yield from returns()) == 2
        yield records()
    assert list(outer()) == [1, True]


def test_an_exception_in_a_generator_comes_out_and_restores_the_mode():
    @no_grad
    def fails():
        yield 1
        raise KeyError("inside")
    g = fails()
    next(g)
    with pytest.raises(KeyError, match="inside"):
        next(g)
    assert records()
    with pytest.raises(StopIteration):
        next(g)


def test_a_generator_that_is_dropped_half_way():
    @no_grad
    def items():
        yield records()
        yield records()
    g = items()
    assert next(g) is False
    del g
    assert records()


def test_enable_grad_generator_inside_no_grad():
    @enable_grad()
    def items():
        yield leaf(2.0) * 3
    with no_grad():
        (item,) = items()
        assert not records()
    assert item.requires_grad


# --- coroutines and threads ---


def test_coroutines_that_take_turns():
    @no_grad
    async def off():
        seen = [records()]
        await asyncio.sleep(0)
        return seen + [records()]

    @enable_grad()
    async def on():
        seen = [records()]
        await asyncio.sleep(0)
        return seen + [records()]

    async def main():
        results = await asyncio.gather(off(), on(), off(), on())
        return results, records()
    results, outside = asyncio.run(main())
    assert results == [[False, False], [True, True]] * 2
    assert outside


def test_asynchronous_generators():
    @no_grad
    async def items():
        for _ in range(2):
            yield records()

    async def main():
        return [(inside, records()) async for inside in items()]
    assert asyncio.run(main()) == [(False, True)] * 2


def test_threads_do_not_see_each_others_mode():
    entered, checked = threading.Event(), threading.Event()

    def off():
        with no_grad():
            entered.set()
            checked.wait(5)
            return records()

    def on():
        entered.wait(5)
        seen = records()
        checked.set()
        return seen
    with ThreadPoolExecutor(2) as pool:
        a, b = pool.submit(off), pool.submit(on)
        assert (a.result(), b.result()) == (False, True)
    assert records()


def test_one_mode_object_in_two_threads():
    # Both are inside at once and leave in the order in which they came.
    mode = no_grad()
    both_in, first_out = threading.Barrier(2, timeout=5), threading.Event()

    def first():
        with mode:
            both_in.wait()
        first_out.set()
        return records()

    def second():
        with no_grad():
            with mode:
                both_in.wait()
                first_out.wait(5)
            return records()
    with ThreadPoolExecutor(2) as pool:
        a, b = pool.submit(first), pool.submit(second)
        assert (a.result(), b.result()) == (True, False)


def test_threads_build_their_own_tapes():
    def slope(n):
        x = leaf(float(n))
        y = x
        for _ in range(200):
            y = y + x * x
        y.backward()
        return x.grad.item()
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(slope, range(8))) == [1 + 400.0 * n for n in range(8)]


# --- where it was recorded ---


def test_record_lines_remembers_the_users_line():
    x = leaf([1.0, 2.0])
    with tape.record_lines():
        y = x * 2
        z = tape.softmax(y + 1)
    number = sys._getframe().f_lineno - 2
    table = tape.show(z).splitlines()
    assert table[0].endswith("recorded at")
    assert table[1].endswith(f"{__file__}:{number}")
    assert table[2].endswith(f"{__file__}:{number + 1}")
    assert table[3].endswith(f"{__file__}:{number + 1}")
    assert f"{__file__}:{number}" in repr(y._record)
    assert "recorded at" not in tape.show(x * 2)


def test_record_lines_as_decorator():
    @tape.record_lines
    def function(x):
        return x * 2
    assert "test_modes.py:" in tape.show(function(leaf(1.0)))


def test_the_line_of_a_numpy_function_is_the_callers():
    import numpy as np
    with tape.record_lines():
        y = np.mean(np.exp(leaf([1.0])))
    assert tape.show(y).count("test_modes.py:") == 2


@pytest.mark.parametrize("value, on", [("1", True), ("0", False), ("", False), (None, False)])
def test_the_environment_variable(value, on, tmp_path):
    script = tmp_path / "user_script.py"
    script.write_text("import tape\n"
                      "x = tape.Tensor(1.0, requires_grad=True)\n"
                      "y = x * 2\n"
                      "print(tape.show(y))\n"
                      "y.backward()\n"
                      "try:\n"
                      "    y.backward()\n"
                      "except RuntimeError as error:\n"
                      "    print(error)\n", encoding="utf-8")
    environment = {k: v for k, v in os.environ.items() if k != "TAPE_RECORD_LINES"}
    environment["PYTHONPATH"] = str(ROOT)
    if value is not None:
        environment["TAPE_RECORD_LINES"] = value
    run = subprocess.run([sys.executable, str(script)], env=environment, capture_output=True,
                         text=True, timeout=60)
    assert run.returncode == 0 and run.stderr == ""
    assert run.stdout.count("user_script.py:3") == (2 if on else 0)


# --- blocks that are left in another order, or elsewhere ---


def test_blocks_of_different_modes_that_interleave():
    def silent():
        with no_grad():
            yield 1
    generator = silent()
    next(generator)
    with tape.strict():
        assert list(generator) == []               # leaves no_grad inside strict
        assert (leaf(1.0) * 2).requires_grad
    assert (leaf(1.0) * 2).requires_grad
    assert modes.get() is DEFAULT


def test_a_block_that_is_left_in_another_context():
    def silent():
        with no_grad():
            yield 1
    generator = silent()
    contextvars.copy_context().run(next, generator)
    assert list(generator) == []                      # there is nothing to undo here
    assert (leaf(1.0) * 2).requires_grad


def test_a_decorated_async_generator_is_sent_to_and_thrown_into():
    @no_grad
    async def echo():
        got = []
        try:
            while True:
                try:
                    got.append((yield len(got)))
                except ValueError:
                    got.append("caught")
                assert not (leaf(1.0) * 2).requires_grad
        finally:
            seen.extend(got)
    seen: list = []

    async def drive():
        generator = echo()
        await generator.asend(None)
        await generator.asend("a")
        await generator.athrow(ValueError)
        assert (leaf(1.0) * 2).requires_grad
        await generator.aclose()
    asyncio.run(drive())
    assert seen == ["a", "caught"]


def test_decorated_methods_and_classes():
    class Model:
        @no_grad
        @staticmethod
        def first(x):
            return (x * 2).requires_grad

        @no_grad
        @classmethod
        def second(cls, x):
            return (x * 2).requires_grad
    assert not Model.first(leaf(1.0)) and not Model().second(leaf(1.0))
    with pytest.raises(TypeError, match="functions, not classes: .*Model"):
        no_grad(Model)


def test_blocks_of_one_mode_that_interleave():
    def silent():
        with no_grad():
            yield
            yield

    def recorded():
        return (leaf(1.0) * 2).requires_grad
    x, y = silent(), silent()
    next(x)
    next(y)
    assert list(x) == [None] and not recorded()          # y is still inside
    assert list(y) == [None] and recorded()
    x = silent()
    next(x)
    with enable_grad():
        list(x)
        assert recorded()
    assert recorded() and modes.get() is DEFAULT
