"""A run of a job: its folder, its checkpoints, and what it goes on from."""

from __future__ import annotations

import itertools
import math
import shlex
import signal
import sys
from contextvars import ContextVar
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, Callable, Iterable, Iterator, Mapping, NoReturn, Sequence

import numpy as np

from nn.cli.config_file import write_config
from nn.cli.flags import Parser, file_path, flag
from nn.cli.script import UsageError, start_of, user_input
from nn.data.tokenizers import Tokenizer
from nn.training.checkpoint import (
    Checkpoint, CheckpointError, Training, load_training, save_checkpoint)
from nn.jobs.watching import check_files, watched_by
from nn.training.costs import costs
from nn.training.engines import Batch, Diverged, Engine
from nn.training.history import NAMES, History
from nn.training.loop import Evaluation, Outcome, Plan, Position, Stopped, train
from nn.training.replay import watched
from nn.training.resume import (
    as_settings, differences, fingerprint, set_streams, stream_states, versions)
from nn.training.runs import (
    CONFIG, LATEST, ROOT, RunFolder, checkpoint_at, given_folder, new_folder, own_checkpoint,
    set_latest)

RUNS = "the run"

# With a share of the steps, a run ends after them as if Ctrl-C had been pressed.
stops_after: ContextVar[float | None] = ContextVar("stops_after", default=None)


@dataclass(frozen=True)
class RunFlags:
    """The flags that all jobs have."""

    out: Path | None = flag(f"folder of the run (default: {ROOT}/, and there the job and the time)",
                            metavar="DIR", group=RUNS)
    overwrite: bool = flag("replace the run that --out holds", False, group=RUNS)
    resume: Path | None = flag(f"go on with a run, to the same result as if it had never stopped: its "
                               f"folder or checkpoint (without PATH: {ROOT / LATEST})", metavar="PATH",
                               nargs="?", const=Path(LATEST), group=RUNS)
    save_interval: int | None = flag("steps between saves (default: those between evaluations, or "
                                     "100)", low=1,
                                     metavar="N", group=RUNS)
    verify_resume: bool = flag("prove it instead: train without a stop, and with one at a random step, "
                               "and compare", False, group=RUNS)
    replay: Path | None = flag("run the step again that gave a number that is not finite, and show "
                               "where it arises", metavar="FILE", group=RUNS)
    preset: str | None = flag("settings that have a name, see --list", metavar="NAME", group=RUNS)
    config: Path | None = flag("settings from a file (.ini, .toml), as the config.ini that each run "
                               "writes into its folder; flags given here win over it", metavar="FILE",
                               group=RUNS)
    list: bool = flag("name the jobs and the presets, and end", False, group=RUNS)
    seconds: float | None = flag("end, saved, after so many seconds of training and evaluations, those "
                                 "before a --resume counted", above=0, metavar="S", group=RUNS)
    log: Path | None = flag("write the course of the training to it, a row for each line (.csv, "
                            ".jsonl)", convert=file_path, metavar="FILE", group=RUNS)
    plot: Path | None = flag("draw the losses and the learning rate into it when the training ends or "
                             "is stopped (.png, .svg, .pdf); needs matplotlib",
                             convert=file_path, metavar="FILE", group=RUNS)


# What concerns one call of the script, and is not taken over by a run that goes on.
OWN = ("out", "overwrite", "resume", "verify_resume", "replay", "preset", "config", "list")

# What such a run may have otherwise, because the training does not depend on it.
FREE = ("save_interval", "log_interval", "eval_interval", "show_attention", "temperature", "seconds",
        "target_loss", "patience", "log", "plot", "sample", "checkpointing")


def stop_at(share: float, steps: int) -> int:
    """The step after which a run ends that has this share of the steps to do; see `stops_after`."""
    return min(max(round(share * steps), 1), steps - 1)


class Done(Exception):
    """The job has nothing more to do; its exit status is `status`."""

    def __init__(self, status: int):
        super().__init__()
        self.status = status


class Run:
    """A context manager around the training of a job, which has the folder for that time.

    Parameters
    ----------
    o : RunFlags
        All flags of the job.
    job : str
    data : texts and arrays
        What is learned; a run goes on only with the same.
    grows : str
        The flag that may be larger in a run that goes on: the number of steps, where the learning
        rate does not depend on it.

    Raises
    ------
    UsageError
        The folder cannot be used, or the run to go on with had other data or settings.
    """

    def __init__(self, o: Any, job: str, *data: Any, grows: str = ""):
        self.o, self.job, self.grows = o, job, grows
        self.data = fingerprint(*data)
        self.folder: RunFolder | None = None
        self.found: Checkpoint | None = None
        self.position, self._linked = Position(), False
        self._kept = math.inf           # the validation loss of the best weights in the folder
        if o.resume and (o.out or o.overwrite):
            raise UsageError("--resume goes on in the folder of its run: leave --out and "
                             "--overwrite out")
        with user_input():
            if o.replay:
                self._go_on_from(o.replay)
            elif o.resume:
                path = own_checkpoint(checkpoint_at(o.resume))
                self.folder = RunFolder(path.parent)
                try:
                    self._go_on_from(path)
                    check_files(o, self._own_log())
                except BaseException:
                    self.folder.close()
                    raise
            else:
                check_files(o, None)
                self.folder = given_folder(o.out, o.overwrite) if o.out else new_folder(job)

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: Any) -> None:
        if self.folder:
            self.folder.close()

    @property
    def last(self) -> Path:
        """The checkpoint of the latest weights."""
        assert self.folder
        return self.folder.last

    @property
    def best(self) -> Path:
        """The checkpoint of the best weights."""
        assert self.folder
        return self.folder.best

    def restore(self, model: Any) -> None:
        """Give a model the weights of the run that goes on, if one does."""
        if self.found:
            with user_input():
                model.load_state_dict(self.found.model.state_dict())

    def train(self, engine: Engine, batches: Callable[[int], Iterable[Batch]],
              lr: Callable[[int], float], plan: Plan,
              evaluate: Callable[[], Evaluation] | None = None,
              model: Callable[[], Any] = lambda: None, tokenizer: Tokenizer | None = None,
              info: dict | None = None, compared: Mapping[str, float] | None = None) -> Outcome:
        """Train as `nn.training.loop.train` does, from the start or from where the run stopped.

        Parameters
        ----------
        engine, lr, plan, evaluate : of `train`
        batches : callable
            Given the number of steps done, the batches from there on.
        model : callable
            The model to save, with the weights of the engine; None where it is no model of `nn`.
        tokenizer, info : of `save_checkpoint`
        compared : mapping
            Losses to compare with in a plot, by what they are of.

        Raises
        ------
        Stopped, Diverged
            With the command to go on with, or to look at the step again.
        """
        history = History(plan.unit)

        def save(path: Path, more: dict, position: Position, batch: Batch = ()) -> None:
            arrays = engine.state_dict() | history.arrays() | {
                f"batch.{i}": np.asarray(a) for i, a in enumerate(batch)}
            with user_input():
                if self.folder:
                    self.folder.hold()
                save_checkpoint(path, model(), tokenizer, {"job": self.job, **(info or {}), **more},
                                Training(self._values(engine, position), arrays))

        def save_as(which: str, more: dict, position: Position) -> None:
            if which == "last":
                save(self.last, more, position)
            elif more["validation_loss"] < self._kept:
                save(self.best, more, position)
                self._kept = more["validation_loss"]
            if not self._linked:        # once: of two runs at a time the later one is the newest
                write_config(self.last.with_name(CONFIG), self.job, _settings(self.o))
                self._linked = True
                if problem := set_latest(self.last.parent):
                    print(f"note: {problem}", file=sys.stderr)

        if self.found:
            self._restore_engine(engine, history)
        if self.o.replay:
            self._replay(engine, lr)
        remaining = self._costs(engine, iter(batches(self.position.step)))
        plan = replace(plan, limits=replace(plan.limits, seconds=self.o.seconds))
        try:
            with watched_by(self.o, history, compared or {}):
                outcome = train(engine, remaining, lr, plan, evaluate, save_as,
                                self.position, lambda step: self._stop(step, plan), history)
        except Stopped as stopped:
            raise self._stopped(stopped) from None
        except Diverged as error:
            if error.batch is None or not self.folder:
                raise
            raise self._diverged(error, partial(save, self.folder.replay, {})) from error
        return self._ended(outcome, plan)

    def _stopped(self, stopped: Stopped) -> Stopped:
        """The same with the command to go on with."""
        return Stopped(stopped.position, stopped.signal, (
            f"stopped by {signal.Signals(stopped.signal).name} after step {stopped.position.step}, "
            f"saved; to go on:\n  {self.command('--resume', self.last.parent)}"))

    def _diverged(self, error: Diverged, save: Callable[[Position, Batch], None]) -> Diverged:
        """The same with the command that runs the step again, whose batch and state are saved."""
        assert self.folder and error.batch is not None
        try:
            save(error.position, error.batch)
        except UsageError as refused:               # weights that are not finite are not saved
            return Diverged(f"{error}; {refused}")
        return Diverged(f"{error}. {self.command('--replay', self.folder.replay)} shows where it "
                        f"arises")

    def _replay(self, engine: Engine, lr: Callable[[int], float]) -> NoReturn:
        """Run the step of a replay file again, and print where the first number is not finite."""
        assert self.found and self.found.training
        arrays, step = self.found.training.arrays, self.position.step
        batch = tuple(arrays[name] for name in sorted(arrays) if name.startswith("batch."))
        if not batch:
            raise UsageError(f"--replay: {self.o.replay} has no batch; it must be a replay.npz that a "
                             f"run wrote as it ended")
        model = getattr(engine, "model", None)
        with watched(model) as findings:
            try:
                loss = engine.update(step + 1, batch, lr(step))
            except Diverged as error:
                print(f"step {step + 1} again: {error}")
                print(f"first: {findings[0]}" if findings else "the results of all modules are finite: "
                      "it arises in the backward pass" if model else
                      "a static graph, of whose parts nothing is known")
                raise Done(0) from None
        print(f"step {step + 1} again: the loss is {loss}, and nothing is infinite or NaN")
        raise Done(1)

    def _costs(self, engine: Engine, remaining: Iterator[Batch]) -> Iterable[Batch]:
        """Say what a step with the first of these batches costs; the batches."""
        batch = next(remaining)
        if found := costs(engine, batch):
            print(found.table())
        print(flush=True)
        return itertools.chain([batch], remaining)

    def _ended(self, outcome: Outcome, plan: Plan) -> Outcome:
        """Say why a training ended before its last step, if it did."""
        if outcome.limit:
            kept = " or ".join(f"--{name.replace('_', '-')}" for name, value in
                               vars(plan.limits).items() if value is not None)
            print(f"ended after step {outcome.step} of {plan.steps}: {outcome.limit}\n"
                  f"to go on beyond that:\n  {self.command('--resume', self.last.parent)}\n"
                  f"with another {kept}: a run that goes on keeps the one that it has", flush=True)
        return outcome

    def command(self, flag: str, path: Path) -> str:
        """A command that goes on with a path."""
        return f"{start_of('train')} {self.job} {flag} {shlex.quote(str(path))}"

    def _stop(self, step: int, plan: Plan) -> int | None:
        share = stops_after.get()
        return signal.SIGINT if share is not None and step == stop_at(share, plan.steps) else None

    def _values(self, engine: Engine, position: Position) -> dict:
        """What a checkpoint holds of the training besides arrays."""
        best = position.best if math.isfinite(position.best) else None
        settings = _settings(self.o)
        if settings.get("workers", 0) is None:      # as chosen here, wherever the run goes on
            settings["workers"] = getattr(engine, "workers", None)
        return {"job": self.job, "settings": settings, "data": self.data,
                "versions": versions(), "streams": stream_states(engine.streams),
                "position": asdict(position) | {"best": best}}

    def _go_on_from(self, path: Path) -> None:
        """Read a checkpoint, and refuse it where this run differs from the one that wrote it."""
        found = load_training(path)
        values = training_values(path, found)
        # A flag that an older version did not have had its default.
        changed = differences(_settings(type(self.o)()) | values["settings"], _settings(self.o))
        self.found, self.position = found, _position(path, values["position"])
        refused = [text for text in changed if not self._may_change(text.partition(":")[0], values)]
        remedies = ["leave these flags out"] if refused else []
        if values["data"] != self.data:
            refused.insert(0, "the data are not those that it was trained on")
            remedies.insert(0, "restore the data")
        if refused:
            remedy = " and ".join(remedies).capitalize()
            grows = f". {self.grows} may grow" if self.grows else ""
            raise CheckpointError(f"{path} cannot be gone on with: {'; '.join(refused)}. {remedy}, or "
                                  f"begin a new run{grows}")
        if self.folder and self.folder.best.exists():
            self._kept = load_training(self.folder.best).info.get("validation_loss", math.inf)
        elif self.folder:               # it was deleted: the next best is kept again
            self.position = replace(self.position, best=math.inf)
        if other := differences(values["versions"], versions()):
            print(f"note: the last bits may differ from a run without a stop: {'; '.join(other)}")

    def _own_log(self) -> str | None:
        """The log that the run wrote before it goes on."""
        training = self.found and self.found.training
        return training.values["settings"].get("log") if training else None

    def _may_change(self, name: str, values: dict) -> bool:
        if name == self.grows:
            return getattr(self.o, name) > values["settings"].get(name, math.inf)
        return name in FREE or name == "workers" and self.o.workers is None

    def _restore_engine(self, engine: Engine, history: History) -> None:
        assert self.found and self.found.training
        training = self.found.training
        with user_input():
            engine.load_state_dict({name: array for name, array in training.arrays.items()
                                    if not name.startswith("batch.") and name not in NAMES})
            set_streams(engine.streams, training.values["streams"])
            history.load(training.arrays)


def _settings(o: Any) -> dict[str, Any]:
    """The flags that a run that goes on has as well."""
    return {name: value for name, value in as_settings(o).items() if name not in OWN}


def training_values(path: Path, found: Checkpoint) -> dict[str, Any]:
    """What a checkpoint says of its training, each value found to have its type.

    Raises
    ------
    CheckpointError
        It has none, as of a model alone.
    """
    if found.training is None:
        raise CheckpointError(f"{path} holds a model without the state of its training, so that no "
                              f"run can go on from it")
    values, types = found.training.values, {"job": str, "settings": dict, "data": str, "versions": dict,
                                            "streams": dict, "position": dict}
    for name, kind in types.items():
        if not isinstance(values.get(name), kind):
            raise CheckpointError(f"{path} does not fit together: {name!r} of its training must be a "
                                  f"{kind.__name__}")
    return values


def _position(path: Path, state: dict) -> Position:
    """What the checkpoint of a training says; of an older one what is missing is that of the start."""
    given: dict[str, Any] = {one.name: state.get(one.name, one.default) for one in fields(Position)}
    if given["best"] is None:                               # infinite, which JSON cannot hold
        given["best"] = math.inf
    for one in fields(Position):
        value, kinds = given[one.name], (int,) if one.type == "int" else (int, float)
        if type(value) not in kinds or (one.type == "int" and value < 0):
            raise CheckpointError(f"{path} does not fit together: its position must be numbers")
        given[one.name] = value if one.type == "int" else float(value)
    return Position(**given)


def asked_for(arguments: Sequence[str]) -> dict[str, Any] | None:
    """The "job" and the "settings" of the run that --resume or --replay names.

    None where neither is among the arguments.

    Raises
    ------
    UsageError
    """
    if not {"--resume", "--replay"} & {word.partition("=")[0] for word in arguments}:
        return None
    o, _ = Parser("train.py", RunFlags, "").parse_known_args(arguments)
    path = o.replay or o.resume
    with user_input():
        path = checkpoint_at(path)
        values = training_values(path, load_training(path))
    return {"job": values["job"], "settings": values["settings"]}
