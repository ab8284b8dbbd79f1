"""The training loop: restore, step, log, evaluate, save; survives being killed at any moment."""

import contextlib
import functools
import json
import os
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

import jax
from jax.sharding import AbstractMesh, Mesh

from mtjax import hosts, sharding
from mtjax.checkpoints.training import Checkpoints
from mtjax.evaluate.texts import check_same_documents
from mtjax.models import Model, Params, count_parameters
from mtjax.pretrained import model_path
from mtjax.train import config as config_lib
from mtjax.train.export import CONFIG_FILE
from mtjax.train.lock import exclusive
from mtjax.train.monitor.metrics import JsonLines, Sink, Speed, TensorBoard
from mtjax.train.monitor.progress import make_progress
from mtjax.train.optimizers import make_optimizer
from mtjax.train.preemption import PREEMPTED_EXIT, Preemption, on_sigterm
from mtjax.train.sources import evaluation_texts, make_batches, make_evaluation
from mtjax.train.step import TrainState, init_state, make_step, parameters_to_use
from mtjax.train.trained import initial_parts, join_of, trained_shapes, whole_params


def run(config: Mapping[str, Any], workdir: str | Path) -> int:
  """Trains as `config` says, in `workdir`; returns the exit code.

  0: all steps are done and the last checkpoint is written. PREEMPTED_EXIT: SIGTERM came and the
  state is saved; the same call continues. The same call continues after any other end as well,
  from the last checkpoint, and on a CPU it repeats the undisturbed run bit by bit. Before the first
  step there is nothing to save, and SIGTERM ends the process, with the same exit code. Raises
  ValueError for a bad config, for a workdir that holds another run, and for one that is in use.

  In a job of several processes (`mtjax.hosts`) all of them call it, with the same config and the
  same folder on a file system that they share. Each feeds the rows of its own devices, all write
  their part of the checkpoints, and process 0 alone writes the other files and lines.
  """
  state, _ = train(config, workdir)
  return 0 if int(state.step) == config["steps"] else PREEMPTED_EXIT


def train(config: Mapping[str, Any], workdir: str | Path) -> tuple[TrainState, Params]:
  """Trains as `run` does; returns the last state and the model's parameters to use.

  They are an average, if the run keeps one; adapters are merged into the frozen weights.
  """
  with hosts.together("reading the config"):
    settings = config_lib.read(config)
  hosts.check_equal("config", _shared(config))
  workdir = Path(workdir)
  with on_sigterm() as stop, hosts.held_by_first(workdir, exclusive(workdir)):
    state, frozen = _train(settings, config, workdir, stop)
  return state, _to_use(settings, state, frozen)


def _train(
  settings: config_lib.RunConfig, config: Mapping[str, Any], workdir: Path, stop: Preemption
) -> tuple[TrainState, Params | None]:
  mesh = sharding.make_mesh(*settings.mesh.values())
  hosts.check_whole_mesh(mesh)
  rows = hosts.HostRows.of(sharding.batch_sharding(mesh), settings.batch)
  with hosts.together("reading the texts"):
    batches = make_batches(settings, rows.rows)
    scored = evaluation_texts(settings)
  texts = batches.get_state()["data"]
  hosts.check_equal("data", dict(texts=texts))
  check_same_documents(scored)
  evaluate = make_evaluation(settings, scored, mesh if mesh.size > 1 else None)
  optimizer = make_optimizer(settings.optimizer, settings.schedule)
  state, frozen = _initial(settings, optimizer, mesh)
  shardings = jax.tree.map(lambda x: x.sharding, state)
  step_fn = jax.jit(
    make_step(
      settings.loss,
      optimizer,
      accumulate=settings.accumulate,
      ema=settings.ema,
      join=join_of(settings.lora),
    ),
    donate_argnums=0,
    out_shardings=(shardings, None),
  )
  steps, stable_end = settings.schedule.steps, settings.schedule.stable_end
  checkpoints = Checkpoints(
    workdir / "checkpoints",
    identity=dict(settings.identity(), texts=texts),
    keep=settings.keep,
    keep_steps=(stable_end,),
  )
  with contextlib.closing(checkpoints):
    state, start = _restore(settings, checkpoints, state, batches)
    if start == steps:
      there = repr(str(workdir))
      hosts.say(f"the run in {there} has done all its {steps} steps: there is nothing to do")
      return state, frozen
    # After the restore: the folder of another run is left as it is.
    if hosts.is_first():
      _write_config(workdir / CONFIG_FILE, config)
    trained = count_parameters(state.params)
    over = "" if frozen is None else f" over {count_parameters(frozen):,} frozen ones"
    hosts.say(f"{trained:,} parameters{over}, from step {start} to {steps}")
    for note in mesh_notes(settings.model, mesh):
      hosts.say(note)
    speed = Speed(steps=steps)
    done = start
    with (
      # With a mesh set, attention keeps the rows of a batch on their devices.
      jax.set_mesh(mesh) if mesh.size > 1 else contextlib.nullcontext(),
      _sinks(settings, workdir, start) as sinks,
    ):
      since_log = 0
      for done in range(start + 1, steps + 1):
        batch = rows.place(next(batches))
        if done == start + 1:
          step_fn = hosts.compiled(step_fn, state, batch, frozen)
        state, metrics = step_fn(state, batch, frozen)
        stop.started()
        since_log += settings.batch * settings.length
        # Read once per step: a signal that comes later is seen by the next step, which then saves.
        stopping = stop.is_set(done)
        last = done == steps or stopping
        values: dict[str, float] = {}
        if done % settings.log_every == 0 or last:
          values = {name: float(value) for name, value in metrics.items()}
          values |= speed.update(done, since_log)
          since_log = 0
        if evaluate is not None and (_due(done, settings.eval_every) or done == steps):
          scores = evaluate(_to_use(settings, state, frozen))
          values |= {f"bits_per_byte/{name}": score for name, score in scores.items()}
        if values:
          for sink in sinks:
            sink.write(done, values)
        if _due(done, settings.save_every) or done == stable_end or last:
          checkpoints.save(done, state, data=batches.get_state(), schedule=_schedule(settings))
        if stopping:
          break
      checkpoints.wait()
    if done < steps:
      hosts.say(f"SIGTERM: step {done} of {steps} is saved, the same command continues")
  return state, frozen


def _shared(config: Mapping[str, Any]) -> dict[str, Any]:
  """Returns what all processes must have alike, which does not include where their texts are."""
  shared = dict(config)
  own = ("sources", "cache_dir")
  shared["data"] = {name: value for name, value in config["data"].items() if name not in own}
  return shared


def mesh_notes(model: Model, mesh: Mesh | AbstractMesh) -> list[str]:
  """Returns sentences about what the mesh does not divide: arrays, and key/value heads."""
  notes = (
    sharding.undivided_note(model.shapes(), mesh),
    sharding.heads_note("the model", model.config.kv_heads, mesh),
  )
  return [note for note in notes if note]


def _to_use(settings, state: TrainState, frozen: Params | None) -> Params:
  return whole_params(settings.lora, parameters_to_use(state), frozen)


def _initial(settings, optimizer, mesh) -> tuple[TrainState, Params | None]:
  """Returns the first state and the frozen parameters, on their devices."""
  make = functools.partial(
    init_state, settings.model, optimizer, seed=settings.seed, ema=settings.ema
  )
  trained = trained_shapes(settings.model, settings.lora)
  shapes = jax.eval_shape(lambda params: make(params=params), trained)
  shardings = sharding.state_shardings(shapes, trained, mesh)
  if settings.init:
    with hosts.together("looking for the initial weights"):
      path = model_path(settings.init)
    hosts.check_same_files(f"files of init {settings.init!r}", path)
  with hosts.together("reading the initial weights"):
    parts = initial_parts(settings.model, settings.init, settings.lora, seed=settings.seed)
  program = jax.jit(make, out_shardings=shardings)
  state = hosts.compiled(program, params=parts.trained)(params=parts.trained)
  frozen = None if parts.frozen is None else sharding.shard_params(parts.frozen, mesh)
  return state, frozen


def _restore(settings, checkpoints, state, batches) -> tuple[TrainState, int]:
  newest = checkpoints.restore(state)
  if newest is None:
    return state, 0
  step, restored = newest
  now, then = _schedule(settings), restored.schedule
  settled = min(s["steps"] - s["decay"] for s in (now, then))
  if now != then and (step > settled or now["warmup"] != then["warmup"]):
    raise ValueError(
      f"the checkpoint of step {step} was made under the schedule {then}; the schedule {now} has "
      f"other learning rates up to that step. Keep the schedule, or keep warmup and remove the "
      f"checkpoints past step {settled}"
    )
  if step > now["steps"]:
    raise ValueError(
      f"the checkpoint is at step {step}, past the last one: steps is {now['steps']}"
    )
  batches.set_state(restored.data)
  return restored.state, step


def _write_config(path: Path, config: Mapping[str, Any]) -> None:
  new = path.with_suffix(".new")
  new.write_text(json.dumps(config, indent=2, default=dict), encoding="utf-8")
  os.replace(new, path)


def _schedule(settings) -> dict[str, int]:
  s = settings.schedule
  return dict(steps=s.steps, warmup=s.warmup, decay=s.decay)


def _due(step: int, every: int) -> bool:
  return every > 0 and step % every == 0


@contextlib.contextmanager
def _sinks(settings, workdir: Path, step: int) -> Generator[list[Sink]]:
  with contextlib.ExitStack() as stack:
    if not hosts.is_first():
      yield []
      return
    sinks: list[Sink] = [
      JsonLines(workdir / "metrics.jsonl", step=step),
      make_progress(steps=settings.schedule.steps, step=step),
    ]
    if settings.tensorboard:
      sinks.append(TensorBoard(workdir / "tensorboard", step=step))
    for sink in sinks:
      stack.callback(sink.close)
    yield sinks
