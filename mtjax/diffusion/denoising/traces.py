"""Traces: what every pass of a denoising loop decided, what it saw, and how probable that was."""

import dataclasses
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float, Int, PyTree

from mtjax.diffusion.candidates import CanvasCandidates
from mtjax.diffusion.view import Revision
from mtjax.display.short import short_repr
from mtjax.models import Params
from mtjax.rounds import run
from mtjax.rounds.placement import Placement
from mtjax.sampling.logits import Rules

_Values = Array | np.ndarray


class TracedPass(struct.PyTreeNode):
  """One pass of all rows; in a `Trace` every array has a leading dimension of passes, P.

  Rows that have ended decide nothing. A window's places outside of its row's canvas do neither.
  """

  canvas: Int[_Values, "*P B S"]  # before the pass: what it saw, up to `end`
  end: Int[_Values, "*P B"]  # entries from here on did not exist yet
  index: Int[_Values, "*P B W"]  # positions of the block, in the text with its prompt
  token: Int[_Values, "*P B W"]  # the candidates; what was written, where something was
  revision: Revision
  log_prob: Float[_Values, "*P B W"]  # of the candidates that were followed; 0 elsewhere
  settled: Bool[_Values, "*P B K"] | None = None  # `machines.blocks.BlockDecision`; None: one block
  text: Int[_Values, "*P B W"] | None = None  # of uniform canvases: what each is if it ends now
  drafted: Bool[_Values, "*P B W"] | None = None  # accepted drafts of an any-subset model

  __repr__ = short_repr


@dataclasses.dataclass(frozen=True)
class TraceEvent:
  """One position that a pass decided, edited, masked again or deleted, or put a mask before.

  A position of a uniform canvas is decided if it takes what the pass has sampled, and "remasked" if
  it becomes noise again. What the last pass over such a canvas decides is its text.
  """

  number: int  # of the pass, from 1
  position: int  # in the text with its prompt, before the pass
  kind: str  # "decided", "edited", "remasked", "deleted" or "inserted"
  token: int  # the new one; if it is remasked, deleted, or inserted before, the one that was there
  log_prob: float  # of the candidate, where it was followed; 0 where a position is remasked


@runtime_checkable
class Traceable(Protocol):
  """A program that can be made to decide what a trace has."""

  def replayed(self, inputs: tuple[Any, ...], passes: TracedPass) -> Float[Array, "P B W"]:
    """Returns the log-probabilities of what the passes wrote or edited, and 0 elsewhere.

    `inputs`: parameters, then the trace's settings.
    """
    ...


class Followed:
  """Base of programs whose rounds are passes, each of which can `follow` a traced one."""

  def begin(self, inputs: Any) -> Any:
    """Returns the state before the first pass."""
    raise NotImplementedError

  def follow(self, inputs: Any, state: Any, seen: TracedPass) -> tuple[Any, Float[Array, "B W"]]:
    """Returns the state after a pass that decides what a traced one did, and log-probabilities."""
    raise NotImplementedError

  def replayed(self, inputs: tuple[Any, ...], passes: TracedPass) -> Float[Array, "P B W"]:
    """Returns the log-probabilities of `Traceable.replayed`, pass by pass."""

    @jax.checkpoint
    def step(state, seen):
      return self.follow(inputs, state, seen)

    return jax.lax.scan(step, self.begin(inputs), passes)[1]


class Trace(struct.PyTreeNode):
  """The passes of a batch, and the settings that they depend on. A pytree: `replay` may be jitted.

  Row b of pass n saw `passes.canvas[n, b]`; each row's first pass is number 0 here, because all
  rows begin together. A log-probability is that of the distribution that the token was sampled
  from, filters, guidance and constraint included; of greedy rows, where it would be 0, that of the
  model at temperature 1 (`View.scored`).
  """

  passes: TracedPass
  settings: PyTree  # the program's inputs without the parameters
  program: Any = struct.field(pytree_node=False)
  mask_id: int | None = struct.field(pytree_node=False)  # the token of masks; None: there are none

  __repr__ = short_repr

  @property
  def num_passes(self) -> int:
    """The number of passes of the batch."""
    return self.passes.token.shape[0]

  def padded(self, num_passes: int) -> "Trace":
    """Returns the trace with passes at its end that decide nothing, so that sizes are few.

    Raises ValueError if it has more passes already.
    """
    more = num_passes - self.num_passes
    if more < 0:
      raise ValueError(f"the trace has {self.num_passes} passes: it cannot be cut to {num_passes}")

    def pad(values):
      return jnp.pad(values, ((0, more), *((0, 0),) * (values.ndim - 1)))

    return self.replace(passes=jax.tree.map(pad, self.passes))

  def events(self, row: int) -> list[TraceEvent]:
    """Returns what happened in a row, pass by pass and from left to right."""
    one = jax.tree.map(lambda values: np.asarray(values)[:, row], self.passes)
    revision, events = one.revision, []
    for n in range(self.num_passes):
      for kind in ("decided", "edited", "remasked", "deleted", "inserted"):
        chosen = getattr(revision, "written" if kind == "decided" else kind)
        for place in np.flatnonzero(() if chosen is None else chosen[n]):
          position = int(one.index[n, place])
          old = int(one.canvas[n, position])
          token = int(one.token[n, place]) if kind in ("decided", "edited") else old
          log_prob = float(one.log_prob[n, place])
          events.append(TraceEvent(n + 1, position, kind, token, log_prob))
    return sorted(events, key=lambda event: (event.number, event.position))


def record(
  program: Any,
  params: Params,
  settings: tuple[Any, ...],
  mask_id: int | None,
  placement: Placement,
) -> tuple[run.Recorded, Trace]:
  """Returns the last state of a run, with the time so far, and its trace.

  The trace holds no array of the placement's mesh: it can be replayed anywhere.

  `mask_id`: the token that stands for a mask in canvases. The program's last stage returns a
  `TracedPass` to observe.
  """
  first, *rounds = placement.record(program, (params, *settings))
  passes = [one.observed for one in rounds]
  stacked = jax.tree.map(lambda *values: np.stack(values), *passes)
  return (rounds or [first])[-1], Trace(stacked, settings, program, mask_id)


def sampled_log_prob(
  rules: Rules, candidates: CanvasCandidates, revision: Revision
) -> Float[Array, "B W"]:
  """Returns the log-probabilities of new tokens, as `Trace` defines them."""
  log_prob = candidates.confidence
  if rules.temperature is not None:
    warm = rules.temperature[:, None] > 0
    log_prob = jnp.where(warm, candidates.log_prob, candidates.confidence)
  return jnp.where(revision.sampled, log_prob, 0.0)
