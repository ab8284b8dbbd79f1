"""Methods of filling with one joint distribution: one or several entries per forward pass."""

import dataclasses
import functools

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mtjax.anysubset.filling import single_stream_step
from mtjax.anysubset.filling.constrained import restrict
from mtjax.anysubset.filling.context_ngram import context_bigrams
from mtjax.anysubset.filling.method import Windowed
from mtjax.anysubset.filling.passes import Phase
from mtjax.anysubset.filling.state import FillState, Problem, at_ranks
from mtjax.anysubset.filling.step import start, step
from mtjax.anysubset.network import Network
from mtjax.anysubset.single_stream import check_two_streams, is_single_stream
from mtjax.models import Config, Params
from mtjax.rounds.run import loop
from mtjax.sampling.logits import process, sample
from mtjax.types import Exactness
from mtjax.verify import VERIFIERS


class Phased:
  """Rounds made of phases, for models of two streams; a phase that no row needs is skipped."""

  decides_order = False

  def check(self, config: Config) -> None:
    check_two_streams(config, type(self).__name__)

  def start(self: Windowed, model: Network, params: Params, problem: Problem) -> FillState:
    def choose(processed, place):
      del place
      return sample(processed[:, 0], problem.key, jnp.zeros_like(problem.total))[:, None]

    return start(model, params, self, problem, choose)

  def step(
    self: Windowed, model: Network, params: Params, problem: Problem, state: FillState
  ) -> FillState:
    state = step(model, params, self, problem, state, self.round[0])
    for phase in self.round[1:]:
      body = functools.partial(step, model, params, self, problem, phase=phase)
      if problem.script is not None:  # no gradient goes through a loop
        state = body(state)
        continue
      # A loop of at most one step: a conditional would copy the cache.
      state = loop(body, lambda state: state.active(problem), state, 1)
    return state


class _Kept(Phased):
  """A method that samples drafts from logits of an earlier pass, independently of each other."""

  def draft_logits(
    self, problem: Problem, state: FillState, drafted: Int[Array, "B J"], vocab: int
  ) -> Float[Array, "B V"]:
    raise TypeError(
      f"{self}: draft_logits is not needed, because an earlier pass kept the logits of the drafts"
    )


class _Verified:
  """A method that is as exact as the verifier that keeps its drafts."""

  @property
  def exactness(self: Windowed) -> Exactness:
    return VERIFIERS[self.verifier].exactness


def _check_window(window: int) -> None:
  if window < 1:
    raise ValueError(f"window must be at least 1, got {window}")


def _check_verifier(name: str) -> None:
  exact = [n for n, v in VERIFIERS.items() if v.chains_only]
  if name not in exact:
    raise ValueError(
      f"a window of drafts is a chain: verifier must be one of {exact}, got {name!r}"
    )


@dataclasses.dataclass(frozen=True)
class DraftsAWindow(_Verified):
  """A method that drafts up to `window` entries per round, and one more if all are accepted."""

  window: int = 4
  verifier: str = "chain"

  def __post_init__(self):
    _check_window(self.window)
    _check_verifier(self.verifier)


@dataclasses.dataclass(frozen=True)
class Sequential(_Kept):
  """One entry per forward pass, each sampled from its own conditional.

  The other lossless methods keep this distribution. For models of a single stream it is the only
  method.
  """

  first = Phase(0, 0)
  round = (Phase(0, 0),)
  verifier = "chain"
  exactness = Exactness.LOSSLESS

  def check(self, config: Config) -> None:
    pass  # fills with every model

  def start(self, model: Network, params: Params, problem: Problem) -> FillState:
    if is_single_stream(model.config):
      return single_stream_step.start(model, params, problem)
    return super().start(model, params, problem)

  def step(self, model: Network, params: Params, problem: Problem, state: FillState) -> FillState:
    if is_single_stream(model.config):
      return single_stream_step.step(model, params, problem, state)
    return super().step(model, params, problem, state)


@dataclasses.dataclass(frozen=True)
class SelfDraft(_Kept, _Verified):
  """ASSD (2504.20456, alg. 1): the model drafts a window, each entry given the decided ones.

  There are two forward passes per round. The first draft is sampled from the oracle's own
  conditional (lemma 1), so it is decided at once, and the second pass verifies the other
  window - 1. A round decides at least 2 entries, and a last single one costs one pass: there are
  never more passes than target entries. `bonus` adds the entry after a window that was accepted
  whole (not in the paper; as in 2211.17192). `verifier` "block" keeps more of a window on average
  (2403.10444).
  """

  window: int = 4
  bonus: bool = True
  verifier: str = "chain"

  def __post_init__(self):
    _check_window(self.window)
    _check_verifier(self.verifier)

  @property
  def first(self) -> Phase:
    return Phase(0, self.window - 1)

  @property
  def round(self) -> tuple[Phase, ...]:
    if self.window == 1:
      return (self.first,)
    return Phase(self.window - 1, 0, self.bonus), self.first


@dataclasses.dataclass(frozen=True)
class Fused(_Kept, DraftsAWindow):
  """ASSD with one forward pass per round, which also computes draft logits of the next window.

  For each number of accepted drafts, the pass has draft queries of the window that would follow
  ((window + 1) window queries, which no entry sees). They do not see the entry that is decided
  last, so the first draft may be refused; every pass still decides at least one entry.
  """

  @property
  def first(self) -> Phase:
    return Phase(0, self.window)

  @property
  def round(self) -> tuple[Phase, ...]:
    return (Phase(self.window, self.window),)


@dataclasses.dataclass(frozen=True)
class DraftOnce(_Kept, DraftsAWindow):
  """ASSD with one forward pass per round, where every draft comes from the first pass.

  That pass has a query for each target entry, which sees the context and nothing that is decided
  later. So a later pass computes two entries per draft (its content, and the oracle query after
  it), where `SelfDraft` has three and `Fused` has window + 3. The more target entries depend on
  each other, the fewer drafts are accepted; every pass decides at least one entry. All logits of
  the first pass are kept: float32, the number of target entries times the vocabulary.
  """

  @property
  def first(self) -> Phase:
    return Phase(0, 0, recalled=self.window)

  @property
  def round(self) -> tuple[Phase, ...]:
    return (Phase(self.window, 0, recalled=self.window),)


@dataclasses.dataclass(frozen=True)
class ContextNGram(Phased, DraftsAWindow):
  """ASSD with bigrams of the context as the draft model (2504.20456): one forward pass per round.

  `context_bigrams` defines the draft distribution. Every pass decides at least one entry.
  """

  @property
  def first(self) -> Phase:
    return Phase(0, 0)

  @property
  def round(self) -> tuple[Phase, ...]:
    return (Phase(self.window, 0),)

  def draft_logits(
    self, problem: Problem, state: FillState, drafted: Int[Array, "B J"], vocab: int
  ) -> Float[Array, "B V"]:
    logits = context_bigrams(problem, state, drafted, vocab)[:, None]
    index = at_ranks(problem, state.count + drafted.shape[1], 1)
    tokens = state.with_drafts(problem, drafted)
    known = restrict(problem.constraint, logits, *tokens, index)
    # No token that fits may have been seen: all that fit are then equally probable.
    any_ = restrict(problem.constraint, jnp.zeros_like(logits), *tokens, index)
    seen = jnp.any(known > -jnp.inf, axis=2, keepdims=True)
    return process(jnp.where(seen, known, any_), problem.rules)[:, 0]
