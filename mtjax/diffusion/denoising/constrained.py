"""Denoising with a constraint on the text: what a pass may decide, and how it decides it.

APPROXIMATE, as `mtjax.constraints.canvas` says; every finished text is accepted.
"""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from mtjax.constraints.batch import Constraint, join
from mtjax.constraints.canvas import allowed_on_canvas, decide_along
from mtjax.diffusion.denoising.state import DenoiseState, Job, Window
from mtjax.diffusion.random_numbers import Stream, position_keys
from mtjax.diffusion.view import Revision, View
from mtjax.display.short import short_repr
from mtjax.sampling.constraint import Automata
from mtjax.sampling.logits import Sampling


class CanvasConstraint(struct.PyTreeNode):
  """The automata of a batch of canvases, and where the text ends that they are about."""

  automata: Automata
  end: Int[Array, " B"]

  __repr__ = short_repr


def constraint_of(
  constraint: Constraint,
  starts: Int[np.ndarray, " B"],
  lengths: Sequence[int],
  vocab: int,
  eos: Sequence[int],
  sampling: Sampling | None,
) -> CanvasConstraint | None:
  """Returns the constraint of a job whose texts begin at `starts`; None where no row has one.

  Raises ValueError as `mtjax.constraints.join` does, and for banned tokens beside a constraint.
  """
  automata = join(constraint, lengths, vocab, eos)
  if automata is None:
    return None
  if sampling is not None:
    sampling.check_no_ban()
  return CanvasConstraint(automata, jnp.asarray(starts + np.asarray(lengths), jnp.int32))


def restrict(
  job: Job, state: DenoiseState, window: Window, logits: Float[Array, "B W V"]
) -> Float[Array, "B W V"]:
  """Returns logits with -inf at tokens with which a canvas cannot be completed, by position."""
  constraint = job.constraint
  if constraint is None:
    return logits
  inside = _inside(job, constraint)
  allowed = allowed_on_canvas(constraint.automata, state.token, state.masked, inside, window.index)
  return jnp.where(allowed, logits, -jnp.inf)


def agreed(
  job: Job,
  state: DenoiseState,
  window: Window,
  view: View,
  logits: Float[Array, "B W V"],
  candidate: Int[Array, "B W"],
  revision: Revision,
) -> Int[Array, "B W"]:
  """Returns the candidates, those that the revision writes changed where they exclude each other.

  `logits`: not processed.
  """
  constraint = job.constraint
  if constraint is None:
    return candidate
  token = decide_along(
    constraint.automata,
    job.rules,
    logits,
    state.token,
    window.write(state.masked, window.read(state.masked) | revision.remasked),
    _inside(job, constraint),
    window.index,
    revision.written | revision.edited,
    position_keys(view, Stream.TOKEN),
  )
  return jnp.where(revision.written | revision.edited, token, candidate)


def _inside(job: Job, constraint: CanvasConstraint) -> Bool[Array, "B S"]:
  place = jnp.arange(job.size)
  return (place >= job.start[:, None]) & (place < constraint.end[:, None])
