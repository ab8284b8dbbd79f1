"""Training checkpoints: written atomically in the background, and verified when they are read.

Orbax writes them; this module decides which may be read. A manifest beside the arrays holds the
run's identity and every array's shape, dtype and checksum, because Orbax silently casts to the
requested dtype, and a flipped bit may not stop decompression.

In a job of several processes each writes its part of the arrays, into one folder that all share,
and all call the same methods. What was saved may be restored on another number of devices or
processes.
"""

import dataclasses
import json
import logging
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from mtjax import hosts
from mtjax.checkpoints.checksums import checksums, differs

FORMAT = 1


class ForeignCheckpoint(ValueError):
  """The error for a valid checkpoint of another run, which is never skipped silently."""


class BrokenCheckpoint(ValueError):
  """The error for a checkpoint that is not what was saved: the one before it is used."""


@dataclasses.dataclass(frozen=True)
class Restored:
  """The content of a checkpoint."""

  state: PyTree
  data: dict[str, Any]  # state of the data iterator
  schedule: dict[str, int]  # schedule of the run that saved the checkpoint


class Checkpoints:
  """Checkpoints of one run under `folder`, at most `keep` (and those of `keep_steps`).

  `identity` must be equal for a checkpoint to be continued: JSON values that describe the model,
  the data and the optimizer of the run. With None, any checkpoint is read and nothing is changed,
  also while the run continues.
  """

  def __init__(
    self,
    folder: str | Path,
    *,
    identity: Mapping[str, Any] | None,
    keep: int = 2,
    keep_steps: tuple[int, ...] = (),
  ):
    import orbax.checkpoint as ocp
    from orbax.checkpoint import checkpoint_managers as policies

    # Orbax logs every step of a save at INFO, several lines of a thousand characters each, and
    # warns about read-only mode.
    quiet = logging.ERROR if identity is None else logging.WARNING
    logging.getLogger("absl").setLevel(quiet)
    self._ocp = ocp
    self._folder = Path(folder).absolute()
    self._identity = json.loads(json.dumps(identity))
    preserve = policies.AnyPreservationPolicy(
      [policies.LatestN(keep), policies.CustomSteps(list(keep_steps))]
    )
    if identity is None:
      options = ocp.CheckpointManagerOptions(read_only=True)
    else:
      options = ocp.CheckpointManagerOptions(
        preservation_policy=preserve, cleanup_tmp_directories=True
      )
    self._manager = ocp.CheckpointManager(
      self._folder,
      options=options,
      item_names=("state", "manifest"),
    )

  def save(self, step: int, state: PyTree, *, data: dict, schedule: dict) -> None:
    """Starts to write; the state may be donated to the next step as soon as this returns."""
    manifest = dict(
      format=FORMAT,
      step=step,
      identity=self._identity,
      schedule=schedule,
      data=data,
      arrays=_described(state),
    )
    args = self._ocp.args
    self._manager.save(
      step,
      args=args.Composite(state=args.StandardSave(state), manifest=args.JsonSave(manifest)),
      force=True,
    )

  def restore(self, state: PyTree) -> tuple[int, Restored] | None:
    """Returns the newest valid checkpoint as (step, content), or None if there is no checkpoint.

    `state` gives shapes, dtypes and shardings. A warning names a broken checkpoint, and the one
    before it is tried; raises ValueError if all are broken. Raises ForeignCheckpoint, with what
    differs, for a checkpoint of another run.
    """
    # A folder that is shared may look older to one process than to another.
    steps = hosts.of_first(sorted(self._manager.all_steps(), reverse=True))
    broken = []
    for step in steps:
      try:
        restored = self._read(step, state)
      except BrokenCheckpoint as error:
        warnings.warn(f"refused checkpoint {self._path(step)}: {error}", stacklevel=2)
        broken.append(step)
        continue
      if self._identity is not None:
        for other in broken:
          self._put_aside(other)
      return step, restored
    if steps:
      raise ValueError(
        f"none of the checkpoints in {self._folder} is usable; remove the folder to begin anew"
      )
    return None

  def wait(self) -> None:
    """Waits until everything is on disk. Raises what the writing thread raised."""
    self._manager.wait_until_finished()

  def close(self) -> None:
    self._manager.close()

  def _path(self, step: int) -> Path:
    return self._folder / str(step)

  def _read(self, step: int, state: PyTree) -> Restored:
    manifest, problem = {}, ""
    try:
      manifest = self._manifest(step)
    except BrokenCheckpoint as error:
      problem = str(error)
    # What is broken for one process alone is broken for all: they must use the same checkpoint.
    if problem := next(filter(None, hosts.gather(problem)), ""):
      raise BrokenCheckpoint(problem)
    if self._identity is not None:
      self._check_identity(step, manifest)
    _check_arrays(manifest["arrays"], dict(_leaves(state)))
    target = jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=getattr(x, "sharding", None)),
      state,
    )
    args = self._ocp.args
    arrays, problem = None, ""
    try:
      arrays = self._manager.restore(
        step, args=args.Composite(state=args.StandardRestore(target))
      ).state
    except Exception as error:  # noqa: BLE001 - Orbax and TensorStore raise many kinds
      text = " ".join(str(error).split())[:300]
      problem = f"cannot be read ({type(error).__name__}: {text})"
    # A damaged part may be that of one process alone.
    if problem := next(filter(None, hosts.gather(problem)), ""):
      raise BrokenCheckpoint(problem)
    if wrong := differs(dict(_leaves(arrays)), manifest["arrays"]):
      raise BrokenCheckpoint(f"{wrong} is not what was saved (its checksum differs)")
    return Restored(arrays, manifest["data"], manifest["schedule"])

  def _manifest(self, step: int) -> dict[str, Any]:
    args = self._ocp.args
    try:
      manifest = self._manager.restore(
        step, args=args.Composite(manifest=args.JsonRestore())
      ).manifest
    except Exception as error:  # noqa: BLE001 - missing, truncated, no JSON
      text = " ".join(str(error).split())[:300]
      raise BrokenCheckpoint(f"its manifest cannot be read ({text})") from error
    missing = {"identity", "schedule", "data", "arrays"} - set(manifest or ())
    if missing or manifest.get("format") != FORMAT or manifest["step"] != step:
      raise BrokenCheckpoint("its manifest is not one of a training run of this version")
    return manifest

  def _check_identity(self, step: int, manifest: dict[str, Any]) -> None:
    if shown := hosts.differences(manifest["identity"], self._identity, "here"):
      raise ForeignCheckpoint(
        f"checkpoint {self._path(step)} is of another run: {shown}. "
        "Give this run another --workdir, or the config of the run there"
      )

  def _put_aside(self, step: int) -> None:
    # Kept for inspection, under a name that is no step: a later save of this step must not collide.
    with hosts.together(f"putting checkpoint {step} aside"):
      if hosts.is_first():
        path = self._path(step)
        number = 0
        while (aside := path.with_name(f"refused-{step}-{number}")).exists():
          number += 1
        path.rename(aside)
    self._manager.reload()


def _leaves(tree: PyTree) -> list[tuple[str, Any]]:
  """Returns (name, leaf) pairs, with names such as "params/layer_0/mlp/down/kernel"."""
  flat = jax.tree_util.tree_leaves_with_path(tree)
  return [(jax.tree_util.keystr(path, simple=True, separator="/"), leaf) for path, leaf in flat]


def _described(state: PyTree) -> dict[str, dict[str, Any]]:
  leaves = dict(_leaves(state))
  sums = checksums(leaves)
  return {
    name: dict(shape=list(np.shape(leaf)), dtype=str(leaf.dtype), **sums[name])
    for name, leaf in leaves.items()
  }


def _check_arrays(stored: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
  if missing := sorted(expected.keys() - stored.keys()):
    raise BrokenCheckpoint(f"it lacks {', '.join(missing[:5])} ({len(missing)} arrays)")
  if extra := sorted(stored.keys() - expected.keys()):
    raise BrokenCheckpoint(f"it has unknown {', '.join(extra[:5])} ({len(extra)} arrays)")
  for name, leaf in expected.items():
    shape, dtype = tuple(stored[name]["shape"]), stored[name]["dtype"]
    if shape != tuple(leaf.shape) or dtype != str(leaf.dtype):
      raise BrokenCheckpoint(
        f"{name} is {dtype}{list(shape)}, but this run needs {leaf.dtype}{list(leaf.shape)}"
      )
