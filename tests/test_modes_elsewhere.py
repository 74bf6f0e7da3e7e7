"""Recording on and off in coroutines, threads and other contexts, and blocks left in another order."""

import asyncio
import contextvars
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

import tape
from tape import enable_grad, no_grad
from tape.grad_mode import DEFAULT, modes
from tests.checks import leaf, recording


# --- coroutines and threads ---


def test_coroutines_that_take_turns():
    @no_grad
    async def off():
        seen = [recording()]
        await asyncio.sleep(0)
        return seen + [recording()]

    @enable_grad()
    async def on():
        seen = [recording()]
        await asyncio.sleep(0)
        return seen + [recording()]

    async def main():
        results = await asyncio.gather(off(), on(), off(), on())
        return results, recording()
    results, outside = asyncio.run(main())
    assert results == [[False, False], [True, True]] * 2
    assert outside


def test_asynchronous_generators():
    @no_grad
    async def items():
        for _ in range(2):
            yield recording()

    async def main():
        return [(inside, recording()) async for inside in items()]
    assert asyncio.run(main()) == [(False, True)] * 2


def test_threads_do_not_see_each_others_mode():
    entered, checked = threading.Event(), threading.Event()

    def off():
        with no_grad():
            entered.set()
            checked.wait(5)
            return recording()

    def on():
        entered.wait(5)
        seen = recording()
        checked.set()
        return seen
    with ThreadPoolExecutor(2) as pool:
        a, b = pool.submit(off), pool.submit(on)
        assert (a.result(), b.result()) == (False, True)
    assert recording()


def test_one_mode_object_in_two_threads():
    # Both are inside at once and leave in the order in which they came.
    mode = no_grad()
    both_in, first_out = threading.Barrier(2, timeout=5), threading.Event()

    def first():
        with mode:
            both_in.wait()
        first_out.set()
        return recording()

    def second():
        with no_grad():
            with mode:
                both_in.wait()
                first_out.wait(5)
            return recording()
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
