"""Denoising with a constraint on the text: what a pass may decide, and how it decides it.

APPROXIMATE, as `mtjax.constraints.canvas` says; every finished text is accepted.
"""

from collections.abc import Callable, Sequence

import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from mtjax.constraints.batch import Constraint, join
from mtjax.constraints.canvas import allowed_on_canvas, decide_along, logits_along
from mtjax.diffusion.candidates import CanvasCandidates, log_prob_of
from mtjax.diffusion.denoising.result import Canvases
from mtjax.diffusion.denoising.state import Job, Window
from mtjax.diffusion.random_numbers import Stream, position_keys
from mtjax.diffusion.view import Revision, View
from mtjax.display.short import short_repr
from mtjax.sampling.constraint import Automata
from mtjax.sampling.logits import Rules, Sampling, process

# Tokens, masks, where the text is, a window's positions, and which of them are decided.
_Canvas = tuple[
  Int[Array, "B S"], Bool[Array, "B S"], Bool[Array, "B S"], Int[Array, "B W"], Bool[Array, "B W"]
]


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
  never: Sequence[int] = (),
) -> CanvasConstraint | None:
  """Returns the constraint of a job whose texts begin at `starts`; None where no row has one.

  `never`: tokens that no text may have. Raises ValueError as `mtjax.constraints.join` does, and for
  banned tokens beside a constraint.
  """
  automata = join(constraint, lengths, vocab, eos, never)
  if automata is None:
    return None
  if sampling is not None:
    sampling.check_no_ban()
  return CanvasConstraint(automata, jnp.asarray(starts + np.asarray(lengths), jnp.int32))


def restrict(
  job: Job, state: Canvases, window: Window, logits: Float[Array, "B W V"]
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
  state: Canvases,
  window: Window,
  view: View,
  logits: Float[Array, "B W V"],
  candidates: CanvasCandidates,
  revision: Revision,
  score: Callable[[Array, Rules], Array],
) -> CanvasCandidates:
  """Returns the candidates, those that the revision writes changed where they exclude each other.

  Their probabilities become those of `scored_along`, whose arguments these are.
  """
  constraint = job.constraint
  if constraint is None:
    return candidates
  keys = position_keys(view, Stream.TOKEN)
  canvas = _canvas(job, constraint, state, window, revision)
  found = decide_along(constraint.automata, job.rules, logits, *canvas, keys)
  token = jnp.where(_decided(revision), found, candidates.token)
  candidates = candidates.replace(token=token)
  return scored_along(job, state, window, logits, candidates, revision, score)


def scored_along(
  job: Job,
  state: Canvases,
  window: Window,
  logits: Float[Array, "B W V"],
  candidates: CanvasCandidates,
  revision: Revision,
  score: Callable[[Array, Rules], Array],
) -> CanvasCandidates:
  """Returns candidates that agree already, as a trace has them, with their probabilities.

  Those that the revision writes have the probabilities of the distributions that they come from,
  given what is written to the left of them. `logits`: not processed. `score`: as `View.scored` is
  made.
  """
  constraint = job.constraint
  if constraint is None:
    return candidates
  token, here = candidates.token, _decided(revision)
  canvas = _canvas(job, constraint, state, window, revision)
  along = logits_along(constraint.automata, logits, *canvas, token)
  # Elsewhere such logits may have no token at all.
  along = jnp.where(here[:, :, None], along, 0.0)
  return CanvasCandidates(
    token=token,
    log_prob=jnp.where(here, log_prob_of(process(along, job.rules), token), candidates.log_prob),
    confidence=jnp.where(here, log_prob_of(score(along, job.rules), token), candidates.confidence),
  )


def _decided(revision: Revision) -> Bool[Array, "B W"]:
  """Returns the places whose token a revision decides."""
  return revision.written | revision.edited


def _canvas(
  job: Job, constraint: CanvasConstraint, state: Canvases, window: Window, revision: Revision
) -> _Canvas:
  """Returns the arguments of `decide_along` and `logits_along` that say what a pass decides."""
  masked = window.write(state.masked, window.read(state.masked) | revision.remasked)
  inside = _inside(job, constraint)
  return state.token, masked, inside, window.index, _decided(revision)


def _inside(job: Job, constraint: CanvasConstraint) -> Bool[Array, "B S"]:
  place = jnp.arange(job.size)
  return (place >= job.start[:, None]) & (place < constraint.end[:, None])
