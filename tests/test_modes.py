"""Recording on and off: no_grad and enable_grad as context managers and decorators, of generators too.

Coroutines, threads and blocks that interleave are in test_modes_elsewhere.py.
"""

import pytest

import tape
from tape import enable_grad, no_grad
from tests.checks import leaf, recording


# --- context manager ---


def test_nothing_is_recorded_inside():
    x = leaf(1.0)
    with no_grad():
        y = x * 2
    assert not y.requires_grad and y.is_leaf
    assert (x * 2).requires_grad


def test_nested_modes():
    with no_grad():
        assert not recording()
        with enable_grad():
            assert recording()
            with no_grad():
                assert not recording()
            assert recording()
        assert not recording()
    assert recording()


def test_one_object_entered_twice():
    mode = no_grad()
    with mode:
        with enable_grad():
            with mode:
                assert not recording()
            assert recording()
        assert not recording()
    assert recording()
    with mode:
        assert not recording()


def test_an_exception_restores_the_mode():
    with pytest.raises(KeyError):
        with no_grad():
            raise KeyError
    assert recording()

    @no_grad()
    def fails():
        raise KeyError
    with pytest.raises(KeyError):
        fails()
    assert recording()


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
        return a, b, recording()
    assert function(1, b=2) == (1, 2, False)
    assert function.__name__ == "function" and function.__doc__ == "Its docstring."
    assert recording()


def test_decorated_methods():
    class Model:
        @no_grad
        def one(self):
            return self, recording()

        @staticmethod
        @no_grad()
        def two():
            return recording()
    model = Model()
    assert model.one() == (model, False)
    assert Model.two() is False


def test_recursion():
    seen = []

    @no_grad()
    def down(n):
        seen.append(recording())
        if n:
            up(n - 1)
        seen.append(recording())

    @enable_grad()
    def up(n):
        seen.append(recording())
        down(n)
        seen.append(recording())
    down(2)
    assert seen == [False, True, False, True, False, False, True, False, True, False]
    assert recording()


# --- generators ---


@pytest.mark.parametrize("decorate", [no_grad, no_grad()], ids=["bare", "called"])
def test_a_generator_holds_the_mode_only_while_it_runs(decorate):
    @decorate
    def items():
        for _ in range(3):
            yield recording()
    seen = []
    for inside in items():
        seen.append((inside, recording()))
    assert seen == [(False, True)] * 3
    assert recording()


def test_generators_that_take_turns():
    @no_grad
    def off():
        while True:
            yield recording()

    @enable_grad
    def on():
        while True:
            yield recording()
    a, b = off(), on()
    for outside in (True, False, True):
        with (enable_grad if outside else no_grad)():
            assert [next(a), next(b), next(a), next(b), next(b)] == [False, True, False, True, True]
            assert recording() is outside


def test_send_throw_close_and_return_of_a_generator():
    log = []

    @no_grad()
    def conversation():
        received = yield "first"
        log.append((received, recording()))
        try:
            yield "second"
        except KeyError as error:
            log.append((error.args[0], recording()))
        try:
            yield "third"
        finally:
            log.append(("closed", recording()))
    g = conversation()
    assert next(g) == "first"
    assert g.send("hello") == "second"
    assert g.throw(KeyError("oops")) == "third"
    g.close()
    assert log == [("hello", False), ("oops", False), ("closed", False)]
    assert recording()

    @no_grad
    def returns():
        yield 1
        return 2

    def outer():
        assert (yield from returns()) == 2
        yield recording()
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
    assert recording()
    with pytest.raises(StopIteration):
        next(g)


def test_a_generator_that_is_dropped_half_way():
    @no_grad
    def items():
        yield recording()
        yield recording()
    g = items()
    assert next(g) is False
    del g
    assert recording()


def test_enable_grad_generator_inside_no_grad():
    @enable_grad()
    def items():
        yield leaf(2.0) * 3
    with no_grad():
        (item,) = items()
        assert not recording()
    assert item.requires_grad
