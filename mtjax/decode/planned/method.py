"""A method that chooses between drafters, trees and plain rounds while it runs."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Int, PyTree

from mtjax.decode.history import TreesObserved
from mtjax.decode.method import Autoregressive
from mtjax.decode.planned.asking import PlannedChoice, ask, begin
from mtjax.decode.planned.counting import RoundCounts, by_depth, count_round
from mtjax.decode.planned.cutting import cut, padded_observed, padded_path
from mtjax.decode.speculative import Speculative, SpeculativeState
from mtjax.draft import Context, Round
from mtjax.draft.shaped.shape import Shape, ShapedDrafter
from mtjax.models import Model, Params
from mtjax.rounds.run import Stages
from mtjax.rounds.state import DecodeState, Request
from mtjax.tuning.online.chooser import Chooser
from mtjax.types import TokenTree, Verdict

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Arm:
  """A drafter, and the sizes of the target's pass that are compiled for it.

  A size is a number of entries per row: the first nodes of the drafter's tree. shaped: the drafter
  of `method` itself, where its shape is data; None: it chooses its drafts alone.
  """

  name: str
  method: Speculative
  sizes: tuple[int, ...]
  shaped: ShapedDrafter | None = None

  def __post_init__(self):
    if not self.sizes or min(self.sizes) < 2 or len(set(self.sizes)) < len(self.sizes):
      raise ValueError(
        f"the sizes of {self.name!r} must be different numbers of at least 2 entries, got "
        f"{self.sizes}"
      )
    if self.shaped is not None and max(self.sizes) > self.shaped.size:
      raise ValueError(
        f"{self.name!r} drafts trees of up to {self.shaped.size} nodes, so no size may be larger: "
        f"got {self.sizes}"
      )

  @property
  def height(self) -> int:
    return self.method.drafter.height

  @property
  def breadth(self) -> int:
    """Ranks that are counted apart: 1 where only the depth counts."""
    return 1 if self.shaped is None else self.method.drafter.breadth


class PlannedState(struct.PyTreeNode):
  arms: tuple[SpeculativeState, ...]
  known: tuple[Int[Array, " B"], ...]  # tokens of the output that each arm's drafter was told
  run: Int[Array, ""]  # the chooser's number
  choice: PlannedChoice
  left: Int[Array, ""]  # rounds until the next question
  counts: RoundCounts  # since the last one
  plain_entries: Int[Array, ""]


class _Done(NamedTuple):
  """What a branch returns, in shapes that all branches share."""

  state: DecodeState
  counts: RoundCounts
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

  max_batch: the largest number of rows that the chooser has a plan for; None: any. chooser: the one
  whose handle is in the params, so that it lives as long as the method. stores: of drafters, whose
  handles are there, for the same reason. Raises ValueError for no
  arm, for two of one name, and where a larger batch is decoded.
  """

  arms: tuple[Arm, ...]
  max_batch: int | None = None
  chooser: Chooser | None = dataclasses.field(default=None, compare=False, repr=False)
  stores: tuple[Any, ...] = dataclasses.field(default=(), compare=False, repr=False)

  def __post_init__(self):
    names = [arm.name for arm in self.arms]
    if not names or len(set(names)) < len(names):
      raise ValueError(f"give at least one arm, each with a name of its own: got {names}")

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
    choice = ask(handle, run, PlannedChoice.plain(self._nodes), jnp.int32(0), nothing)
    sizes = dict(capacity=capacity, max_new=max_new)

    def started(arm: Arm, params) -> SpeculativeState:
      def reads(_=None):
        return arm.method.start(params, prompt, length, **sizes)

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
      left=jnp.maximum(choice.rounds, 1),
      counts=nothing,
      plain_entries=jnp.int32(0),
    )

  def stages(self, model: Model, params: Params, method_params: PyTree, request: Request) -> Stages:
    """Returns a single stage, because the choice decides which parts a round has."""
    handle, its_params = method_params

    def one_round(state: DecodeState, _):
      state = state.replace(method=self._asked(handle, state.method))
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
      method = method.replace(counts=method.counts.add(done.counts), left=method.left - 1)
      return done.state.replace(method=method), done.observed

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

  def _asked(self, handle, kept: PlannedState) -> PlannedState:
    """Returns the state with the chooser's answer and counts that begin anew, if it is time."""

    def question(known):
      choice, _, counts = known
      answer = ask(handle, kept.run, choice, choice.rounds - kept.left, counts)
      nothing = RoundCounts.none(self._height, self._breadth)
      return answer, jnp.maximum(answer.rounds, 1), nothing

    choice, left, counts = once(kept.left <= 0, question, (kept.choice, kept.left, kept.counts))
    return kept.replace(choice=choice, left=left, counts=counts)

  def _plain(self, model: Model, params: Params, request: Request, state: DecodeState) -> _Done:
    (forward, commit) = Autoregressive().stages(model, params, None, request).values()
    entries = state.method.plain_entries + jnp.sum(state.active)
    after, seen = commit(state, forward(state, None))
    after = after.replace(method=state.method.replace(plain_entries=entries))
    return self._done(after, RoundCounts.none(1, 1), Autoregressive().observe(seen))

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
      shape = _first(shape, arm.shaped.size, size)
      drafter = arm.shaped.with_shape(drafter, shape)
    context = Context(request, state.last, state.count, state.active, state.cache)
    draft, drafter = inner.drafter.propose(its_params, drafter, context)
    draft = cut(draft, size)
    now = state.replace(method=mine)
    decision = inner.decide(model, params, request, now, draft)
    verdict = padded_path(decision.verdict, arm.height)
    after, found = inner.keep(request, now, draft, drafter, decision.replace(verdict=verdict))
    emitted = found.round.num_emitted
    rest = request.limit - state.count
    if arm.shaped is None:
      counts = by_depth(min(arm.height, size - 1), verdict, emitted, rest)
    else:
      counts = count_round(shape, verdict, emitted, rest, arm.breadth)
    arms, known = list(kept.arms), list(kept.known)
    arms[number], known[number] = after.method, after.count
    after = after.replace(method=kept.replace(arms=tuple(arms), known=tuple(known)))
    return self._done(after, counts, inner.observe(found))

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

  def _done(self, state: DecodeState, counts: RoundCounts, observed: TreesObserved) -> _Done:
    table = RoundCounts.none(self._height, self._breadth).add(counts)
    return _Done(state, table, padded_observed(observed, self.size, self._height + 1))


def once(go: Bool[Array, ""], step: Callable[[T], T], value: T) -> T:
  """Returns step(value) where `go`, else the value: a conditional that copies nothing.

  It is a loop of at most one turn. What passes through a conditional is copied by XLA, the caches
  of all drafters among it; what is carried by a loop stays where it is.
  """
  return jax.lax.while_loop(
    lambda carry: carry[0], lambda carry: (jnp.zeros((), bool), step(carry[1])), (go, value)
  )[1]


def _nothing(shapes: _Done, state: DecodeState) -> _Done:
  """Returns results of no branch, for a state."""
  empty = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), tuple(shapes[1:]))
  return _Done(state, *empty)


def _first(shape: Shape, nodes: int, size: int) -> Shape:
  """Returns a shape of `nodes` nodes, of which the first `size` may be there."""
  shape = jax.tree.map(lambda x: x[:nodes], shape)
  return shape.replace(there=shape.there & (jnp.arange(nodes) < size))


def _sums(each: Sequence[Sequence[int]]) -> list[int]:
  out = np.zeros(max(map(len, each)), int)
  for one in each:
    out[: len(one)] += one
  return out.tolist()
