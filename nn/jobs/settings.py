"""Where the settings of a training come from, besides the flags of the command line.

    a run that --resume or --replay names     what it was trained with
    --preset NAME                             a line of `PRESETS`
    --config FILE                             a file such as the config.ini that every run writes

Later ones win over earlier ones, and flags on the command line over all.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any, Iterable, Mapping, NamedTuple, Sequence

from nn.cli.config_file import read_config
from nn.cli.flags import Parser
from nn.cli.script import UsageError, start_of
from nn.jobs.run import OWN, RUNS, RunFlags, asked_for

# The headings of --help, and the flags under each.
GROUPS = {
    "the model": ("arch", "n_layer", "n_head", "n_kv_head", "n_embd", "d_ff", "block_size", "norm",
                  "norm_kind", "activation", "position", "bias", "tie_weights", "dropout", "patch_size",
                  "pool", "dtype"),
    "the optimiser": ("steps", "epochs", "batch_size", "lr", "warmup", "weight_decay", "grad_clip",
                      "micro_batch_size", "checkpointing"),
    "the data": ("data", "lines", "tokenizer", "vocab_size", "dates", "held_out"),
    RUNS: ("engine", "scalars", "seed", "workers", "target_loss", "patience"),
    "what is shown": ("log_interval", "eval_interval", "eval_batches", "sample",
                      "temperature", "show_attention")}


class Preset(NamedTuple):
    """Settings of a job that have a name.

    Attributes
    ----------
    job, settings : the job and the values of its flags.
    line : what it is, for --list.
    """

    job: str
    line: str
    settings: Mapping[str, Any]


PRESETS = {
    "sentences": Preset("sentences", "the decoder of 2017 on ten sentences, in seconds", {
        "arch": "decoder", "steps": 500, "lr": 0.3}),
    # The two settings that nanoGPT gives for Shakespeare. That on a CPU has a learning rate of 0.001
    # there; 0.003 is what trains best in so few steps.
    "shakespeare-cpu": Preset("text", "0.8 million parameters, a context of 64; minutes", {
        "n_layer": 4, "n_head": 4, "n_embd": 128, "block_size": 64, "batch_size": 12, "steps": 2000,
        "dropout": 0.0, "lr": 3e-3}),
    "baby-gpt": Preset("text", "10.7 million parameters, a context of 256; days", {
        "n_layer": 6, "n_head": 6, "n_embd": 384, "block_size": 256, "batch_size": 64, "steps": 5000,
        "dropout": 0.2, "lr": 1e-3, "eval_interval": 250}),
    # The parts of Llama 2 and 3 (Touvron et al. 2023), at the size of shakespeare-cpu.
    "llama-tiny": Preset("text", "RMSNorm, SwiGLU, rotary positions, grouped queries", {
        "n_layer": 4, "n_head": 4, "n_kv_head": 2, "n_embd": 128, "block_size": 64, "batch_size": 12,
        "norm_kind": "rms", "activation": "swiglu", "position": "rotary", "tie_weights": False}),
}


def settings_of(name: str | None, arguments: Sequence[str], jobs: Iterable[str],
                default: str) -> tuple[str, list[tuple[str, Mapping[str, Any]]]]:
    """The job that is meant, and the settings that flags of the command line win over.

    Parameters
    ----------
    name : of the job on the command line; None where it names none
    arguments : of the command line, behind that
    jobs, default : of the script

    Returns
    -------
    job, sources
        `sources` are pairs: what a mistake is said to be in, and values of flags.

    Raises
    ------
    UsageError
        A source is none, or is of another job.
    """
    found = asked_for(arguments)
    o, _ = Parser("train.py", RunFlags, "").parse_known_args(
        [word for word in arguments if word not in ("-h", "--help")])
    sources: list[tuple[str, str, Mapping[str, Any]]] = []      # (what it is, its job, its settings)
    if found:
        sources.append(("that run", found["job"], found["settings"]))
    if o.preset is not None:
        if o.preset not in PRESETS:
            raise UsageError(f"--preset: {_unknown(o.preset, PRESETS)}")
        sources.append((f"--preset {o.preset}", *PRESETS[o.preset][::2]))
    wanted = name or (sources[0][1] if sources else None)
    if o.config is not None:
        found = read_config(o.config)
        sources.append((f"--config {o.config}", *section(found, o.config, wanted, jobs)))
    job = name or (sources[0][1] if sources else default)
    if job not in jobs:
        raise UsageError(f"unknown job {_unknown(job, jobs).removeprefix('unknown ')}")
    for source, its, _ in sources:
        if its != job:
            raise UsageError(f"{source} is of the job {its}, not of {job}: {start_of('train')} {its} "
                             f"...")
    return job, [(source, settings) for source, _, settings in sources]


def section(found: Mapping[str, dict[str, Any]], path: Path, job: str | None,
            jobs: Iterable[str]) -> tuple[str, dict[str, Any]]:
    """That of a job, or where no job is asked for the only one of a file."""
    for name in found:
        if name not in jobs:
            raise UsageError(f"--config: {path}: [{name}] is no job; {_unknown(name, jobs)}")
    if not found:
        raise UsageError(f"--config: {path} names no job; its settings stand below one, as [text]")
    names = [f"[{name}]" for name in found]
    if job is None and len(found) > 1:
        raise UsageError(f"--config: {path} is for several jobs, {' and '.join(names)}; name one: "
                         f"{start_of('train')} JOB ...")
    job = job or next(iter(found))
    if job not in found:
        raise UsageError(f"--config: {path} has no section [{job}], but {', '.join(names)}")
    settings = {_as_field(key): value for key, value in found[job].items()}
    for name in OWN:
        if name in settings and name != "out":
            raise UsageError(f"--config: {path}: {name} is no setting of a run, but of a call; give "
                             f"--{name.replace('_', '-')} on the command line")
    return job, settings


def _as_field(key: str) -> str:
    return key.strip().replace("-", "_")


def _unknown(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), 1)
    return f"unknown {name!r}; " + (f"did you mean {near[0]!r}?" if near else
                                    f"known: {', '.join(known)}")
