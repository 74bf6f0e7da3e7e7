"""The training loop, alone with an engine that only counts, and the two engines."""

import itertools
import math
import signal

import numpy as np
import pytest

import nn
import tape
import tape.lazy as ad
from nn.models.static.sgd import TrainingGraph, sgd_step
from nn.training.engines import Diverged, StaticEngine, TapeEngine
from nn.training import progress
from nn.training.loop import Evaluation, Plan, Position, Stopped, train
from nn.training.progress import Progress
from nn.training.signals import noted


class Counter:
    """An engine whose loss is the sum of the inputs, and which keeps what it was given."""

    grad_norm = math.nan

    def __init__(self):
        self.calls = []

    def update(self, step, batch, lr):
        self.calls.append((step, batch, lr))
        return float(np.sum(batch[0]))


def batches(*sizes):
    """Batches of these sizes whose losses are 1, 2, 3, ..."""
    return [(np.full(size, (i + 1) / size), None) for i, size in enumerate(sizes)]


def saver():
    """A function to save with, and the list of what it was called with."""
    calls = []
    return lambda which, info, position: calls.append((which, info)), calls


# --- the loop ---


def test_each_step_has_its_batch_and_its_rate_and_no_batch_too_many_is_made():
    engine, made = Counter(), iter(batches(*[4] * 5))
    outcome = train(engine, made, lambda i: i / 10, Plan(4, 4))
    assert [(step, lr) for step, _, lr in engine.calls] == [(1, 0.0), (2, 0.1), (3, 0.2), (4, 0.3)]
    assert outcome.loss == 4.0 and len(list(made)) == 1


def test_the_loss_of_a_round_of_several_steps_is_the_mean_of_its_examples():
    engine = Counter()
    outcome = train(engine, batches(4, 4, 2, 4, 4, 2), lambda i: 1.0, Plan(2, 10, steps_per_round=3))
    assert [step for step, _, _ in engine.calls] == [1, 2, 3, 4, 5, 6]
    assert outcome.loss == pytest.approx((4 * 4 + 5 * 4 + 6 * 2) / 10)


def test_lines_come_at_their_interval_at_the_end_and_with_evaluations(capsys):
    train(Counter(), batches(*[1] * 7), lambda i: 1.0, Plan(7, 1, log_interval=3, eval_interval=5),
          lambda: Evaluation("   seen"))
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines] == ["3/7", "5/7", "6/7", "7/7"]
    assert ["seen" in line for line in lines] == [False, True, False, True]
    # The mean of the losses 1 to 7 since the line before.
    assert [float(line.split()[3]) for line in lines] == [2.0, 4.5, 6.0, 7.0]


@pytest.mark.parametrize("rounds, interval", [(7, 3), (6, 3), (2, 5), (1, 1)])
def test_how_often_something_is_still_due(rounds, interval):
    plan = Plan(rounds, 1)
    for done in range(rounds + 1):
        later = sum(plan.due(interval, now) for now in range(done + 1, rounds + 1))
        assert plan.left(interval, done) == later


def test_the_time_left_counts_rounds_and_evaluations(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("nn.training.progress.time.perf_counter", lambda: now[0])
    progress = Progress(10, 50)
    now[0] = 4.0                                          # two rounds
    assert progress.line(2, 1.0, "", 3).endswith("25 tokens/s   0:16 left")
    with progress.evaluating():
        now[0] += 20.0
    assert progress.line(2, 1.0, "", 3).endswith("25 tokens/s   1:16 left")


def test_a_remark_of_an_evaluation_has_its_own_line(capsys):
    train(Counter(), batches(1, 1), lambda i: 1.0, Plan(2, 1),
          iter([Evaluation("", remark="below"), Evaluation("")]).__next__)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 and lines[1] == "below"


def test_the_last_weights_are_saved_at_their_interval_and_the_best_when_they_are():
    save, calls = saver()
    losses = iter([3.0, 2.0, 2.5])
    outcome = train(Counter(), batches(*[1] * 5), lambda i: 1.0,
                    Plan(5, 1, eval_interval=2, save_interval=2),
                    lambda: Evaluation("", next(losses)), save)
    assert calls == [("best", {"step": 2, "loss": 2.0, "validation_loss": 3.0}),
                     ("last", {"step": 2, "loss": 2.0, "validation_loss": 3.0}),
                     ("best", {"step": 4, "loss": 4.0, "validation_loss": 2.0}),
                     ("last", {"step": 4, "loss": 4.0, "validation_loss": 2.0}),
                     ("last", {"step": 5, "loss": 5.0, "validation_loss": 2.5})]
    assert outcome.best == 2.0 and outcome.evaluation.loss == 2.5


def test_saving_and_evaluating_have_intervals_of_their_own_and_without_a_loss_none_is_best():
    save, calls = saver()
    outcome = train(Counter(), batches(*[1] * 3), lambda i: 1.0,
                    Plan(3, 1, name="epoch", eval_interval=3), lambda: Evaluation("", detail="x"), save)
    assert calls == [("last", {"epoch": n, "loss": n}) for n in (1, 2, 3)]
    assert outcome.best == math.inf and outcome.evaluation.detail == "x"


def test_a_validation_loss_that_is_not_finite_ends_the_training_before_anything_is_saved():
    save, calls = saver()
    with pytest.raises(Diverged, match="the validation loss is nan at step 2, of which nothing was"):
        train(Counter(), batches(1, 1), lambda i: 1.0, Plan(2, 1, eval_interval=2, save_interval=2),
              lambda: Evaluation("", math.nan), save)
    assert calls == []


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
@pytest.mark.parametrize("where", ["update", "evaluate"])
def test_a_signal_is_acted_on_behind_the_step_and_a_second_one_does_not_lose_the_save(where, name):
    number, saved = getattr(signal, name), []
    before = signal.getsignal(number)

    def interrupted(*_):
        signal.raise_signal(number)
        signal.raise_signal(signal.SIGINT)

    class Interrupted(Counter):
        def update(self, step, batch, lr):
            if where == "update" and step == 3:
                interrupted()
            return super().update(step, batch, lr)

    def evaluate():
        if where == "evaluate" and len(engine.calls) == 3:
            interrupted()
        return Evaluation("")

    def save(which, info, position):
        saved.append((which, info["step"], position))
    engine = Interrupted()
    with pytest.raises(Stopped) as stopped:
        train(engine, batches(*[1] * 9), lambda i: 1.0, Plan(9, 1, save_interval=3), evaluate, save)
    assert stopped.value.position == Position(3, 3.0, 1) and stopped.value.signal == number
    assert saved == [("last", 3, Position(3, 3.0, 1))] and isinstance(stopped.value, KeyboardInterrupt)
    assert signal.getsignal(number) == before and len(engine.calls) == 3


def test_a_signal_during_a_save_is_acted_on_behind_the_next_step_and_that_is_saved():
    saved = []

    def save(which, info, position):
        saved.append(position.step)
        if position.step == 2:
            signal.raise_signal(signal.SIGTERM)
    with pytest.raises(Stopped) as stopped:
        train(Counter(), batches(*[1] * 9), lambda i: 1.0, Plan(9, 1, save_interval=2), None, save)
    assert saved == [2, 3] and stopped.value.position.step == 3


def test_a_signal_that_is_ignored_stays_so():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with noted() as found:
            signal.raise_signal(signal.SIGHUP)
        assert found.signal is None and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("done", range(6))
def test_steps_that_were_done_before_are_not_done_again(done, capsys):
    """Two rounds of three steps, of 4, 4 and 2 examples; the third step's line is that of a round."""
    save, whole, rest, positions = saver()[0], Counter(), Counter(), []
    sizes, plan = (4, 4, 2, 4, 4, 2), Plan(2, 10, steps_per_round=3, save_interval=1)
    wanted = train(whole, batches(*sizes), lambda i: i, plan,
                   save=lambda which, info, position: positions.append(position))
    start = [Position(), *positions][done]
    lines = capsys.readouterr().out.splitlines()
    found = train(rest, batches(*sizes)[done:], lambda i: i, plan, save=save, start=start)
    assert found.loss == wanted.loss and whole.calls[done:][0][0] == rest.calls[0][0] == done + 1
    again = capsys.readouterr().out.splitlines()
    assert [line[:22] for line in again] == [line[:22] for line in lines[done // 3:]]


def test_a_training_that_was_complete_is_evaluated_once_more():
    outcome = train(Counter(), [], lambda i: 1.0, Plan(3, 1), lambda: Evaluation("", 2.0),
                    start=Position(3, 1.5, 1, 0.5))
    assert (outcome.loss, outcome.best, outcome.evaluation.loss) == (1.5, 0.5, 2.0)


@pytest.mark.parametrize("given", [3, 4])
def test_too_few_batches_are_an_error(given):
    with pytest.raises(ValueError, match=f"for each of the 3 . 2 steps, got {given}"):
        train(Counter(), batches(*[1] * given), lambda i: 1.0, Plan(3, 1, steps_per_round=2))


# --- the engines ---

X = np.random.default_rng(0).standard_normal((6, 3)).astype(np.float32)
Y = (X @ np.array([[1.0], [-2.0], [0.5]], np.float32))
WEIGHT = np.full((3, 1), 0.1, np.float32)


class Regression(nn.Module):
    """y = x w, with half the mean squared error as its loss."""

    def __init__(self):
        self.weight = nn.Parameter(WEIGHT)

    def forward(self, x, y):
        out = x @ self.weight
        return out, ((out - y) ** 2).mean() / 2


def tape_engine(grad_clip=math.inf):
    model = Regression()
    return TapeEngine(model, nn.SGD(model.parameters(), lr=9.0), grad_clip)


def static_engine():
    x, y, weight = ad.Variable("x"), ad.Variable("y"), ad.Variable("weight")
    out = ad.matmul(x, weight)
    loss = ad.mean((out - y) * (out - y), dim=(0, 1)) / 2
    return StaticEngine(TrainingGraph(x, y, [weight], out, loss).run, [WEIGHT])


def weight_of(engine):
    return engine.model.weight.data if isinstance(engine, TapeEngine) else engine.weights[0]


ENGINES = pytest.mark.parametrize("make", [tape_engine, static_engine])


@ENGINES
def test_an_update_is_a_step_down_the_slope_and_returns_the_loss_before_it(make):
    engine = make()
    loss = engine.update(1, (X, Y), 0.5)
    error = X.astype(np.float64) @ WEIGHT - Y
    assert loss == pytest.approx((error ** 2).mean() / 2, rel=1e-6)
    np.testing.assert_allclose(weight_of(engine), WEIGHT - 0.5 * X.T @ error / 6, rtol=1e-5)
    assert weight_of(engine).dtype == np.float32
    np.testing.assert_array_equal(WEIGHT, np.full((3, 1), 0.1, np.float32))


def test_both_engines_learn_the_same_in_the_loop():
    found = []
    for make in (tape_engine, static_engine):
        engine = make()
        loss = train(engine, itertools.repeat((X, Y)), lambda i: 0.5 / (i + 1), Plan(20, 6)).loss
        found.append([loss, *weight_of(engine).ravel()])
    np.testing.assert_allclose(found[0], found[1], rtol=1e-5)


@ENGINES
@pytest.mark.parametrize("targets", [np.inf, np.nan])
def test_a_loss_that_is_not_finite_is_refused_and_changes_nothing(make, targets):
    engine = make()
    with np.errstate(all="ignore"), pytest.raises(Diverged, match="the loss is (nan|inf) at step 7"):
        engine.update(7, (X, np.full_like(Y, targets)), 0.5)
    np.testing.assert_array_equal(weight_of(engine), WEIGHT)


def test_a_gradient_that_is_not_finite_is_refused_by_name_and_changes_nothing():
    class Root(Regression):
        def forward(self, x, y):
            return None, tape.sqrt(self.weight - WEIGHT).sum()
    model = Root()
    engine = TapeEngine(model, nn.SGD(model.parameters(), lr=1.0))
    with np.errstate(all="ignore"), pytest.raises(
            Diverged, match="step 4, of which nothing was saved: .* not finite in weight"):
        engine.update(4, (X, Y), 0.5)
    np.testing.assert_array_equal(model.weight.data, WEIGHT)


def test_static_weights_that_are_not_finite_are_refused_and_change_nothing():
    engine = StaticEngine(lambda X, y, weights: [None, 1.0, np.full((3, 1), np.inf)], [WEIGHT])
    with pytest.raises(Diverged, match="the sum of the new weights is -inf at step 2, of which"):
        engine.update(2, (X, Y), 0.5)
    np.testing.assert_array_equal(engine.weights[0], WEIGHT)


def test_the_tape_engine_clips_and_sets_the_rate():
    engine = tape_engine(grad_clip=0.01)
    engine.update(1, (X, Y), 0.5)
    assert np.linalg.norm(weight_of(engine) - WEIGHT) == pytest.approx(0.5 * 0.01, rel=1e-3)


def test_sgd_step_refuses_gradients_that_do_not_fit():
    for slopes in ([], [np.ones(3)], [np.ones((3, 1))] * 2):
        with pytest.raises(ValueError, match="sgd_step: f_run_model must return a gradient of the sh"):
            sgd_step(lambda *_: [None, 0.0, *slopes], X, Y, [WEIGHT], 0.1)


def test_the_line_on_a_terminal_is_cut_to_its_width(monkeypatch, capsys):
    monkeypatch.setattr(progress, "_columns", lambda: 20)
    line = progress.TerminalLine()
    line.show(1, "step 1/1500   loss 2.9664   0:04 left")
    line.clear()
    assert capsys.readouterr().err == "step 1/1500   loss \r" + 19 * " " + "\r"
