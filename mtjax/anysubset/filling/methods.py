"""How the entries of a canvas are decided: sequentially, or several a forward pass, same law."""

import dataclasses
import functools

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mtjax.anysubset.filling import single_stream_step
from mtjax.anysubset.filling.context_ngram import context_bigrams
from mtjax.anysubset.filling.method import Windowed
from mtjax.anysubset.filling.passes import Phase
from mtjax.anysubset.filling.state import FillState, Problem
from mtjax.anysubset.filling.step import start, turn
from mtjax.anysubset.network import Network
from mtjax.anysubset.single_stream import check_two_streams, is_single_stream
from mtjax.models import Config, Params
from mtjax.rounds.run import loop
from mtjax.sampling.logits import process, sample
from mtjax.types import Exactness
from mtjax.verify import VERIFIERS


class Phased:
  """Rounds made of phases, on models of two streams; one that no row needs any more is skipped."""

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
    state = turn(model, params, self, problem, state, self.round[0])
    for phase in self.round[1:]:
      step = functools.partial(turn, model, params, self, problem, phase=phase)
      # A loop of at most one turn: a conditional would copy the cache.
      state = loop(step, lambda state: state.active(problem), state, 1)
    return state


class _Kept(Phased):
  """Drafts are drawn from laws of an earlier pass, each independent of the others."""

  def draft_logits(
    self, problem: Problem, state: FillState, drafted: Int[Array, "B J"], vocab: int
  ) -> Float[Array, "B V"]:
    raise TypeError(f"{self}: drafts are drawn from the laws that a pass has kept")


class _Verified:
  """As exact as the verifier that keeps drafts."""

  @property
  def exactness(self: Windowed) -> Exactness:
    return VERIFIERS[self.verifier].exactness


def _check_window(window: int) -> None:
  if window < 1:
    raise ValueError(f"window must be at least 1, got {window}")


def _check_verifier(name: str) -> None:
  exact = [n for n, v in VERIFIERS.items() if v.chains_only]
  if name not in exact:
    raise ValueError(f"a window of drafts is a chain: verifier is one of {exact}, got {name!r}")


@dataclasses.dataclass(frozen=True)
class DraftsAWindow(_Verified):
  """Drafts up to `window` entries a round; one more is decided if all are accepted."""

  window: int = 4
  verifier: str = "chain"

  def __post_init__(self):
    _check_window(self.window)
    _check_verifier(self.verifier)


@dataclasses.dataclass(frozen=True)
class Sequential(_Kept):
  """One entry a forward pass, each from its own conditional: the law of the others.

  The only method for models of a single stream, too.
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
      return single_stream_step.turn(model, params, problem, state)
    return super().step(model, params, problem, state)


@dataclasses.dataclass(frozen=True)
class SelfDraft(_Kept, _Verified):
  """ASSD (2504.20456, alg. 1): the model drafts a window, each entry given the decided ones.

  Two forward passes a round. The first draft law is the oracle's own conditional (lemma 1), so its
  draw is decided at once, and the second pass verifies the other window - 1. A round decides at
  least 2 entries, and a last single one costs one pass: never more passes than asked entries.
  `bonus` adds the entry after a window that was accepted whole (not in the paper; as in
  2211.17192). `verifier` "block" keeps more of a window on average (2403.10444).
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
  """ASSD with one forward pass a round: drafts of the next window ride in the oracle pass.

  For each number of accepted drafts that pass has the draft laws of the window that would follow
  ((window + 1) window queries, nobody's keys). They miss the one entry that is decided last, so
  the first draft may be refused; every pass still decides one entry at least.
  """

  @property
  def first(self) -> Phase:
    return Phase(0, self.window)

  @property
  def round(self) -> tuple[Phase, ...]:
    return (Phase(self.window, self.window),)


@dataclasses.dataclass(frozen=True)
class DraftOnce(_Kept, DraftsAWindow):
  """ASSD with one forward pass a round: every draft is from the first pass.

  That pass has a query for each asked entry, which sees what is given and nothing that is decided
  later. So a pass computes two entries a draft (its content, and the oracle query after it), where
  `SelfDraft` has three and `Fused` window + 3. Fewer drafts are accepted, by as much as asked
  entries depend on each other; every pass decides one entry at least. All laws of that pass are
  kept: as many float32 as there are asked entries times the vocabulary.
  """

  @property
  def first(self) -> Phase:
    return Phase(0, 0, recalled=self.window)

  @property
  def round(self) -> tuple[Phase, ...]:
    return (Phase(self.window, 0, recalled=self.window),)


@dataclasses.dataclass(frozen=True)
class ContextNGram(Phased, DraftsAWindow):
  """ASSD with bigrams of the context as the draft model (2504.20456): one forward pass a round.

  See `context_bigrams` for the law. Every pass decides one entry at least.
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
    logits = context_bigrams(problem, state, drafted, vocab)
    return process(logits[:, None], problem.rules)[:, 0]
