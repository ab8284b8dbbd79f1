"""A method that chooses between drafters, trees and plain rounds while it runs."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Int, PyTree

from mtjax.decode.cutting import cut, first_nodes, padded_observed, padded_path
from mtjax.decode.history import TreesObserved
from mtjax.decode.method import Autoregressive
from mtjax.decode.planned.arm import Arm
from mtjax.decode.planned.asking import PlannedChoice, WatchedDrafts, ask, begin, is_watched
from mtjax.decode.planned.counting import RoundCounts, RoundLog, by_depth, count_round
from mtjax.decode.planned.once import once
from mtjax.decode.planned.watching import DraftsOfText, right_drafts
from mtjax.decode.speculative import Speculative, SpeculativeState
from mtjax.draft import Context, Round
from mtjax.models import Model, Params
from mtjax.rounds.run import Stages
from mtjax.rounds.state import DecodeState, Request
from mtjax.tuning.online.chooser import Chooser
from mtjax.types import TokenTree, Verdict


class PlannedState(struct.PyTreeNode):
  arms: tuple[SpeculativeState, ...]
  known: tuple[Int[Array, " B"], ...]  # tokens of the output that each arm's drafter was told
  run: Int[Array, ""]  # the chooser's number
  choice: PlannedChoice
  done: Int[Array, ""]  # rounds since the last question
  asked: Int[Array, " B"]  # tokens of the output at the last question
  log: RoundLog  # of them
  plain_entries: Int[Array, ""]


class _Done(NamedTuple):
  """What a branch returns, in shapes that all branches share."""

  state: DecodeState
  observed: TreesObserved


@dataclasses.dataclass(frozen=True)
class Planned:
  """Rounds of several drafters and of plain decoding in one program, a `mtjax.decode.Method`.

  Every few rounds a chooser on the host (`mtjax.tuning.online.Chooser`) is told what the rounds
  since its last answer tried and accepted, and says how to go on: with which arm and size, and
  where shapes are data, with which tree. All of that is data: nothing is compiled again. The answer
  follows from rounds that are over, so each round verifies drafts whose shape does not depend on
  its own tokens, and the output keeps what the arms' verifiers promise: the distribution does not
  change, however the chooser decides.

  Params are (the chooser's handle, the parameters of every arm's drafter). A drafter that is not
  used is not run. Before it is used again it is told at once what was emitted since, so it must
  learn from emitted tokens alone, not from the target's logits (recycling and jacobi do).

  max_batch: the largest number of rows that the chooser has a plan for; None: any. max_rounds:
  between two questions; a chooser that says more is asked after so many. watch: the arm whose
  chains are compared with the text of plain rounds, where the chooser asks for it; it must say that
  its drafts follow from the text alone (`Arm.of_text`). So a plan learns about acceptance although
  nothing is verified. That costs as many lookups as there were rounds, and some more. None: a
  chooser that asks for it is told nothing.
  chooser: the one whose handle is in the params, so that it lives as long as the method. stores: of
  drafters, whose handles are there, for the same reason. Raises ValueError for no arm, for two of
  one name, for an arm that cannot be watched, and where a larger batch is decoded.
  """

  arms: tuple[Arm, ...]
  max_batch: int | None = None
  max_rounds: int = 16
  watch: str | None = None
  chooser: Chooser | None = dataclasses.field(default=None, compare=False, repr=False)
  stores: tuple[Any, ...] = dataclasses.field(default=(), compare=False, repr=False)

  def __post_init__(self):
    names = [arm.name for arm in self.arms]
    if not names or len(set(names)) < len(names):
      raise ValueError(f"give at least one arm, each with a name of its own: got {names}")
    if self.watch is not None and not self._watched_arms:
      raise ValueError(
        f"{self.watch!r} cannot be watched: it must be an arm whose drafter drafts one chain from "
        f"the text alone, as prompt lookup does; the arms are {', '.join(names)}"
      )

  @property
  def branches(self) -> dict[tuple[str, int], int]:
    """The number of each arm's name and size; 0 is plain decoding."""
    pairs = [(arm.name, size) for arm in self.arms for size in arm.sizes]
    return {pair: number for number, pair in enumerate(pairs, 1)}

  @property
  def size(self) -> int:
    """The largest number of entries per row."""
    return max(size for arm in self.arms for size in arm.sizes)

  @property
  def _nodes(self) -> int:
    return max(self.size, *(arm.shaped.size for arm in self.arms if arm.shaped is not None), 0)

  @property
  def _height(self) -> int:
    return max(arm.height for arm in self.arms)

  @property
  def _breadth(self) -> int:
    return max(arm.breadth for arm in self.arms)

  def check(self, model: Model) -> None:
    for arm in self.arms:
      arm.method.check(model)

  def start(
    self,
    method_params: PyTree,
    prompt: Int[Array, "B P"],
    length: Int[Array, " B"],
    *,
    capacity: int,
    max_new: int,
  ) -> PlannedState:
    handle, params = method_params
    if self.max_batch is not None and length.shape[0] > self.max_batch:
      raise ValueError(
        f"nothing is planned for a batch of {length.shape[0]}: this plan is for up to "
        f"{self.max_batch} rows. Plan for larger batches, or decode fewer prompts at once"
      )
    run, nothing = begin(handle, length), RoundCounts.none(self._height, self._breadth)
    plain, none = PlannedChoice.plain(self._nodes), self._no_drafts(length)
    choice = ask(handle, run, plain, jnp.int32(0), nothing, none)
    sizes = dict(capacity=capacity, max_new=max_new)

    def started(arm: Arm, params) -> SpeculativeState:
      def reads(_=None):
        return arm.method.start(params, prompt, length, **sizes)

      if arm.late is not None:
        return arm.method.state_of(arm.late.start_late(params, prompt, length, max_new=max_new))
      if arm.shaped is None:
        return reads()
      # A draft model that is not used at once reads the prompt when it is, if ever.
      numbers = [self.branches[arm.name, size] for size in arm.sizes]
      chosen = (choice.branch >= min(numbers)) & (choice.branch <= max(numbers))
      unread = arm.shaped.start_unread(params, prompt, length, max_new=max_new)
      return once(chosen, reads, arm.method.state_of(unread))

    return PlannedState(
      arms=tuple(started(arm, its) for arm, its in zip(self.arms, params, strict=True)),
      known=(jnp.zeros(length.shape, jnp.int32),) * len(self.arms),
      run=run,
      choice=choice,
      done=jnp.int32(0),
      asked=jnp.ones(length.shape, jnp.int32),
      log=RoundLog.empty(self.max_rounds, length.shape[0], self._height),
      plain_entries=jnp.int32(0),
    )

  def stages(self, model: Model, params: Params, method_params: PyTree, request: Request) -> Stages:
    """Returns a single stage, because the choice decides which parts a round has."""
    handle, its_params = method_params

    def one_round(state: DecodeState, _):
      state = state.replace(method=self._asked(handle, state))
      branch = state.method.choice.branch
      parts: list[Callable[[DecodeState], _Done]] = [
        functools.partial(self._plain, model, params, request)
      ]
      for number, arm in enumerate(self.arms):
        run_arm = functools.partial(
          self._speculative, model, params, its_params[number], request, number
        )
        parts += [functools.partial(run_arm, size) for size in arm.sizes]
      done = _nothing(jax.eval_shape(parts[0], state), state)
      for number, part in enumerate(parts):
        done = once(branch == number, lambda done, part=part: part(done.state), done)
      method = done.state.method
      return done.state.replace(method=method.replace(done=method.done + 1)), done.observed

    return {"round": one_round}

  def observe(self, observed: TreesObserved) -> TreesObserved:
    return observed

  def counters(self, kept: PlannedState, rounds: int) -> dict[str, Any]:
    """Returns the sums over all arms, as `Speculative.counters` has them."""
    each = [
      arm.method.counters(state, rounds) for arm, state in zip(self.arms, kept.arms, strict=True)
    ]
    return dict(
      draft_forwards=sum(one["draft_forwards"] for one in each),
      entries=sum(one["entries"] for one in each) + int(kept.plain_entries),
      drafted_at_depth=_sums([one["drafted_at_depth"] for one in each]),
      accepted_at_depth=_sums([one["accepted_at_depth"] for one in each]),
      accepted_at_place=_sums([one["accepted_at_place"] for one in each]),
    )

  def _asked(self, handle, state: DecodeState) -> PlannedState:
    """Returns the method's state with the chooser's answer, if it is time."""
    kept = state.method

    def question(known):
      choice, done = known
      counts = self._counts(choice, kept.log, done)
      drafts = once(
        is_watched(choice), lambda _: self._watched(state), self._no_drafts(state.count)
      )
      return ask(handle, kept.run, choice, done, counts, drafts), jnp.int32(0)

    due = kept.done >= jnp.clip(kept.choice.rounds, 1, self.max_rounds)
    choice, done = once(due, question, (kept.choice, kept.done))
    asked = jnp.where(due, state.count, kept.asked)
    return kept.replace(choice=choice, done=done, asked=asked)

  @property
  def _watched_arms(self) -> list[tuple[int, Arm, DraftsOfText]]:
    """The arm that is watched, with its number and its drafter; none if there is none."""
    return [
      (number, arm, arm.of_text)
      for number, arm in enumerate(self.arms)
      if arm.name == self.watch and arm.of_text is not None
    ]

  def _no_drafts(self, length: Int[Array, " B"]) -> WatchedDrafts:
    height = max((arm.height for _, arm, _ in self._watched_arms), default=0)
    return WatchedDrafts.none(length, (self.max_rounds + height) if height else 0, height)

  def _watched(self, state: DecodeState) -> WatchedDrafts:
    """Returns which drafts of the watched arm are the text's own tokens; nothing of it is kept."""
    kept, drafts = state.method, self._no_drafts(state.count)
    for number, arm, drafter in self._watched_arms:
      text = self._told(arm.method, kept.arms[number].drafter, state, kept.known[number])
      right = right_drafts(drafter, text, drafts.right.shape[1])
      # A row that has ended emitted nothing.
      begin = text.length - (state.count - kept.asked)
      drafts = drafts.replace(right=right, length=text.length, begin=begin)
    return drafts

  def _counts(self, choice: PlannedChoice, log: RoundLog, rounds: Int[Array, ""]) -> RoundCounts:
    """Returns the counts of the rounds of a choice; none of plain decoding."""
    verdict, num_emitted, rest = log.read(jnp.where(choice.branch == 0, 0, rounds))
    arms = [(arm, size) for arm in self.arms for size in arm.sizes]
    number = jnp.maximum(choice.branch - 1, 0)
    size = jnp.array([size for _, size in arms])[number]
    height = jnp.array([min(arm.height, size - 1) for arm, size in arms])[number]
    shaped = jnp.array([arm.shaped is not None for arm, _ in arms])[number]
    shape = first_nodes(choice.shape, self._nodes, size)
    of_shape = count_round(shape, verdict, num_emitted, rest, self._breadth)
    of_depth = by_depth(height, verdict, num_emitted, rest)
    widths = ((0, 0), (0, self._breadth - 1))
    return RoundCounts(
      jnp.where(shaped, of_shape.tried, jnp.pad(of_depth.tried, widths)),
      jnp.where(shaped, of_shape.accepted, jnp.pad(of_depth.accepted, widths)),
      of_depth.trees,
    )

  def _plain(self, model: Model, params: Params, request: Request, state: DecodeState) -> _Done:
    (forward, commit) = Autoregressive().stages(model, params, None, request).values()
    entries = state.method.plain_entries + jnp.sum(state.active)
    after, seen = commit(state, forward(state, None))
    after = after.replace(method=state.method.replace(plain_entries=entries))
    return self._done(after, Autoregressive().observe(seen))

  def _speculative(
    self,
    model: Model,
    params: Params,
    its_params: PyTree,
    request: Request,
    number: int,
    size: int,
    state: DecodeState,
  ) -> _Done:
    arm, kept = self.arms[number], state.method
    inner, mine = arm.method, kept.arms[number]
    drafter = self._told(inner, mine.drafter, state, kept.known[number])
    shape = kept.choice.shape
    if arm.shaped is not None:
      shape = first_nodes(shape, arm.shaped.size, size)
      drafter = arm.shaped.with_shape(drafter, shape)
    context = Context(request, state.last, state.count, state.active, state.cache)
    draft, drafter = inner.drafter.propose(its_params, drafter, context)
    draft = cut(draft, size)
    now = state.replace(method=mine)
    decision = inner.decide(model, params, request, now, draft)
    verdict = padded_path(decision.verdict, arm.height)
    after, found = inner.keep(request, now, draft, drafter, decision.replace(verdict=verdict))
    emitted = found.round.num_emitted
    log = kept.log.write(kept.done, verdict, emitted, request.limit - state.count)
    arms, known = list(kept.arms), list(kept.known)
    arms[number], known[number] = after.method, after.count
    after = after.replace(method=kept.replace(arms=tuple(arms), known=tuple(known), log=log))
    return self._done(after, inner.observe(found))

  def _told(self, inner: Speculative, drafter: PyTree, state: DecodeState, known) -> PyTree:
    """Returns the drafter's state with all tokens that it was not told of."""
    height = inner.drafter.height
    missing = state.count - known
    # In the first round a drafter adds the token of the prefill by itself.
    behind = jnp.any(missing > 0) & jnp.any(state.rounds > 0)

    def tell(drafter):
      place = jnp.arange(state.tokens.shape[1])
      token = jnp.take_along_axis(state.tokens, known[:, None] + place, axis=1, mode="clip")
      one, column = jnp.ones_like(missing), jnp.zeros_like(missing)[:, None]
      tree = TokenTree(
        token=state.last[:, None], parent=column - 1, depth=column, order=column,
        valid=column == 0, height=height, breadth=inner.drafter.breadth,
      )  # fmt: skip
      path = jnp.zeros((missing.shape[0], height + 1), jnp.int32)
      logits = jnp.zeros((missing.shape[0], 1, 1))
      return inner.drafter.update(
        drafter, Round(tree, Verdict(path, one, state.last), token, missing, logits)
      )

    return once(behind, tell, drafter)

  def _done(self, state: DecodeState, observed: TreesObserved) -> _Done:
    return _Done(state, padded_observed(observed, self.size, self._height + 1))


def _nothing(shapes: _Done, state: DecodeState) -> _Done:
  """Returns results of no branch, for a state."""
  return _Done(state, jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes.observed))


def _sums(each: Sequence[Sequence[int]]) -> list[int]:
  out = np.zeros(max(map(len, each)), int)
  for one in each:
    out[: len(one)] += one
  return out.tolist()
