"""A record of the input and output of a drafter, round by round, for checks in plain Python."""

from typing import NamedTuple

import jax
import numpy as np

from mtjax.decode.generation import generate
from mtjax.decode.speculative import Speculative
from mtjax.draft import Drafter, Round
from mtjax.types import Draft
from tests.draft.drafters import LIMITS, PARAMS, PROMPTS, TARGET


class Seen(NamedTuple):
  """Arrays are numpy's."""

  before: object  # the drafter's state at the beginning of the round
  draft: Draft
  round: Round
  after: object  # and at its end


class Recorder:
  """A drafter that behaves as another and keeps what passes."""

  def __init__(self, drafter: Drafter):
    self.drafter, self._kept = drafter, []

  def __getattr__(self, name):
    return getattr(self.drafter, name)

  def propose(self, params, state, context):
    draft, after = self.drafter.propose(params, state, context)
    jax.debug.callback(self._keep, state, draft, ordered=True)
    return draft, after

  def update(self, state, round):
    after = self.drafter.update(state, round)
    jax.debug.callback(self._keep, round, after, ordered=True)
    return after

  def _keep(self, *trees):
    self._kept.append(jax.tree.map(np.asarray, trees))


def rounds(drafter: Drafter, params=None, **settings) -> tuple[list[Seen], list[list[int]]]:
  """All rounds of the tiny target on PROMPTS, and its text."""
  recorder = Recorder(drafter)
  settings = dict(max_tokens=LIMITS) | settings
  out = generate(
    TARGET, PARAMS, PROMPTS, method=Speculative(recorder), method_params=params, **settings
  )
  jax.effects_barrier()
  pairs = zip(recorder._kept[::2], recorder._kept[1::2], strict=True)
  return [Seen(*before, *after) for before, after in pairs], out.tokens
