"""A profile of a speculative round: the time of the two networks, and of everything else.

Every part runs as in decoding, many times inside one compiled loop, on the inputs of a real round.
A loop is timed with two numbers of iterations, and the difference counts, which excludes the start
and the copy of arguments. The inputs of a part are carried through its loop and changed a little
every time, so that nothing is computed once for all iterations; its results are carried too, so
that nothing is left out. A network can be slower after other work than after itself, so drafter and
target are also timed in turn: comparing a round with that shows the effect.
"""

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from mtjax import frontier as frontier_lib
from mtjax import verify
from mtjax.bench.repeat import nothing, repeated, stirred
from mtjax.bench.stand_in import StandIn, answers_of, with_stand_in
from mtjax.decode.generation import prefill
from mtjax.decode.speculative import Decision, Speculative, emitted_tokens
from mtjax.draft import Context, Round
from mtjax.models import Model, Params
from mtjax.rounds import run
from mtjax.rounds import state as rounds
from mtjax.rounds.state import DecodeState, Request
from mtjax.sampling.logits import Sampling
from mtjax.types import Draft, Verdict

ROUNDS = 16  # rounds over a growing text
_FEW = 4  # iterations of the shorter of the two loops
_DRAFTER = "drafter, without its network"
_MIN_SECONDS, _MAX_ROUNDS = 0.05, 1000  # of the longer loop, unless the text limits it


@dataclasses.dataclass(frozen=True)
class Profile:
  """Seconds per round. The time outside the networks is known by difference, and part by part."""

  nodes: int  # nodes in the target's forward pass
  vocab: int
  round: float
  target: float  # the target's forward pass alone
  draft: float  # the drafter, minus the drafter with a stand-in for its network
  in_turn: float  # drafter and target in one loop
  parts: dict[str, float]  # outside the networks, each alone

  @property
  def outside(self) -> float:
    """Returns the round minus the networks alone, which includes their slowdown within a round."""
    return max(self.round - self.target - self.draft, 0.0)

  @property
  def share(self) -> float:
    return self.outside / self.round

  @property
  def share_in_turn(self) -> float:
    """Returns `share`, with the slowdown of drafter and target by each other left out."""
    networks = self.in_turn - self.parts[_DRAFTER]
    return max(self.round - networks, 0.0) / self.round

  @property
  def share_of_parts(self) -> float:
    return sum(self.parts.values()) / self.round


def profile_round(
  model: Model,
  params: Params,
  method: Speculative,
  method_params: PyTree,
  prompt: Sequence[int],
  *,
  sampling: Sampling = Sampling(),
  repeats: int = 7,
  key: int = 0,
  clock: Callable[[], float] = time.perf_counter,
  progress: Callable[[str], None] = lambda text: None,
) -> Profile:
  """Times a round of `method` after `prompt`, batch 1; each loop's least of `repeats` counts.

  clock: time.process_time is disturbed less by other programs, if one thread does all the work.

  Raises ValueError for a method that is not Speculative and where the model's positions are too
  few for the rounds that are timed.
  """
  if not isinstance(method, Speculative):
    raise ValueError(f"only speculative rounds have these parts, not {type(method).__name__}")
  start = _start(model, params, method, method_params, prompt, sampling, key)
  loops = _loops(model, params, method, method_params, start)
  seconds = _time(loops, repeats, clock, progress)
  drafter, without = seconds.pop("drafter"), seconds.pop("drafter without its network", None)
  bookkeeping = drafter if without is None else min(without, drafter)
  return Profile(
    nodes=start.draft.tree.size,
    vocab=model.config.vocab_size,
    round=seconds.pop("round"),
    target=seconds.pop("target"),
    draft=drafter - bookkeeping,
    in_turn=seconds.pop("in turn"),
    parts={_DRAFTER: bookkeeping, **seconds},
  )


@dataclasses.dataclass(frozen=True)
class _Start:
  """The state after the prompt, and the results of its first round."""

  request: Request
  state: DecodeState
  draft: Draft
  decision: Decision
  text: DecodeState  # the state after more rounds


def _start(model, params, method, method_params, prompt, sampling, key) -> _Start:
  max_new = (ROUNDS + 1) * (method.drafter.height + 1)
  capacity = len(prompt) + max_new
  if capacity > model.config.max_position:
    raise ValueError(
      f"{ROUNDS} rounds of up to {method.drafter.height + 1} tokens after {len(prompt)} need "
      f"{capacity} positions, the model has {model.config.max_position}: use fewer nodes"
    )
  ids, length = jnp.asarray([list(prompt)], jnp.int32), jnp.asarray([len(prompt)])
  request = Request(
    rules=sampling.rules(1, model.config.vocab_size),
    limit=jnp.asarray([max_new], jnp.int32),
    eos=jnp.asarray([-1], jnp.int32),
    key=jax.random.split(jax.random.key(key), 1),
  )

  @jax.jit
  def first(params, method_params, request):
    state = prefill(model, params, request, ids, length, capacity=capacity, max_new=max_new)
    kept = method.start(method_params, ids, length, capacity=capacity, max_new=max_new)
    state = state.replace(method=kept)
    draft, _ = method.drafter.propose(method_params, kept.drafter, _context(request, state))
    decision = method.decide(model, params, request, state, draft)
    step = functools.partial(run.run_stages, method.stages(model, params, method_params, request))
    return state, draft, decision, run.loop(step, _active, state, ROUNDS).replace(method=None)

  return _Start(request, *first(params, method_params, request))


def _active(state: DecodeState):
  return state.active


def _context(request: Request, state: DecodeState) -> Context:
  return Context(request, state.last, state.count, state.active, state.cache)


@dataclasses.dataclass(frozen=True)
class _Loop:
  """A loop: body(carry, *arguments) -> carry, up to `max_rounds` times."""

  body: Callable[..., Any]
  carry: PyTree
  arguments: tuple
  max_rounds: int = _MAX_ROUNDS


def _loops(model, params, method, method_params, start: _Start) -> dict[str, _Loop]:
  request, state, decision = start.request, start.state, start.decision
  vocab = model.config.vocab_size
  draft = start.draft if _needs_q(method, request) else start.draft.replace(q=None)

  def a_round(state, params, method_params, request):
    return run.run_stages(method.stages(model, params, method_params, request), state)

  def target(carry, params):
    frontier, cache, _ = carry
    output = model.forward(params, frontier, cache)
    frontier = frontier.replace(token=(frontier.token + 1) % vocab)
    return *stirred((frontier, cache), nothing(output.logits)), output

  drafting = _drafter(method.drafter, method_params, draft, start)

  def in_turn(carry, params, *arguments):
    drafter, (frontier, cache, output) = carry
    kept, token, count, logits, drafted = drafter
    drafter = kept, token, count, stirred(logits, nothing(output.logits)), drafted
    drafter = drafting.body(drafter, *arguments)
    frontier, cache = stirred((frontier, cache), nothing(drafter[-1].tree.token))
    return drafter, target((frontier, cache, output), params)

  def verification(carry, request, state):
    output, draft, count, _ = carry
    decision = method.decide(StandIn(model), output, request, state.replace(count=count), draft)
    draft = draft.replace(tree=draft.tree.replace(token=(draft.tree.token + 1) % vocab))
    result = decision.tree, decision.verdict, decision.position, decision.entries
    return *stirred((output, draft), nothing(decision.verdict.token)), count + 1, result

  def emission(carry, request):
    state, tree, verdict = carry
    state, _ = rounds.emit(state, request, emitted_tokens(tree, verdict), verdict.count)
    return state, *stirred((tree, verdict), nothing(state.count))

  def commitment(carry):
    cache, kv, position, verdict = carry
    cache = cache.commit(kv, position, verdict.path, verdict.count)
    return cache, *stirred((kv, position, verdict), nothing(cache.length))

  tree, verdict = decision.tree, decision.verdict
  result = tree, verdict, decision.position, decision.entries
  frontier = frontier_lib.tree(
    tree.token, tree.parent, start=state.cache.length, valid=start.draft.tree.valid
  )
  output = jax.jit(model.forward)(params, frontier, state.cache)
  alone = frontier, state.cache, output
  loops: dict[str, _Loop] = {
    "round": _Loop(a_round, state, (params, method_params, request), ROUNDS),
    "target": _Loop(target, alone, (params,)),
    "drafter": drafting,
    "in turn": _Loop(
      in_turn, (drafting.carry, alone), (params, *drafting.arguments), drafting.max_rounds
    ),
    "verify": _Loop(verification, (output, draft, state.count, result), (request, state)),
    "emit": _Loop(emission, (state, tree, verdict), (request,)),
    "commit": _Loop(commitment, (state.cache, decision.kv, decision.position, verdict), ()),
  }
  replaced = with_stand_in(method.drafter)
  if replaced is not None:
    answers = answers_of(method.drafter.model, decision.logits)
    loops["drafter without its network"] = _drafter(replaced, answers, draft, start)
  return loops


def _drafter(drafter, method_params, draft, start: _Start) -> _Loop:
  """Returns a loop of propose and update over the text of real rounds, one token per round."""
  needs_q = draft.q is not None
  one = jnp.ones_like(start.state.count)

  def body(carry, method_params, request, state, text, path):
    kept, token, count, logits, _ = carry
    context = _context(request, state).replace(last=token, step=count)
    draft, kept = drafter.propose(method_params, kept, context)
    token = jnp.take_along_axis(text.tokens, (count % text.count)[:, None], axis=1)
    round = Round(
      draft.tree, Verdict(path, one, token[:, 0]), jnp.broadcast_to(token, path.shape), one, logits
    )
    kept = drafter.update(kept, round)
    draft = draft if needs_q else draft.replace(q=None)
    return kept, token[:, 0], count + 1, stirred(logits, nothing(draft.tree.token)), draft

  state = start.state
  carry = state.method.drafter, state.last, state.count, start.decision.logits, draft
  arguments = method_params, start.request, state, start.text, start.decision.verdict.path
  return _Loop(body, carry, arguments, ROUNDS * (drafter.height + 1))


def _needs_q(method: Speculative, request: Request) -> bool:
  return request.rules.temperature is not None and verify.get_verifier(method.verifier).needs_q


def _time(loops: dict[str, _Loop], repeats: int, clock, progress) -> dict[str, float]:
  def seconds(name, count):
    begin = clock()
    jax.block_until_ready(compiled[name](count, loops[name].carry, *loops[name].arguments))
    return clock() - begin

  compiled, many = {}, {}
  for name, loop in loops.items():
    progress(f"compiling: {name}")
    compiled[name] = jax.jit(repeated(loop.body))
    seconds(name, _FEW)
    each = max((seconds(name, ROUNDS) - seconds(name, _FEW)) / (ROUNDS - _FEW), 1e-9)
    many[name] = int(min(max(_MIN_SECONDS / each, ROUNDS), loop.max_rounds))
  counts = {name: (_FEW, many[name]) for name in loops}
  fastest = {name: [float("inf")] * 2 for name in loops}
  for index in range(repeats):
    progress(f"repeat {index + 1} of {repeats}")
    for name in loops:
      for place, count in enumerate(counts[name]):
        fastest[name][place] = min(fastest[name][place], seconds(name, count))
  return {
    name: max((fastest[name][1] - fastest[name][0]) / (many - few), 0.0)
    for name, (few, many) in counts.items()
  }


def with_nodes(model: Model, method: Speculative, method_params: PyTree, nodes: int) -> Speculative:
  """Returns the method with trees of `nodes` nodes, including the root; unchanged if impossible."""
  drafter: Any = method.drafter
  drafts = nodes - 1
  for field, value in dict(size=nodes, length=drafts, tree=nodes).items():
    if not any(known.name == field for known in dataclasses.fields(drafter)):
      continue
    for size in (value, drafts):  # some drafters count the root
      with contextlib.suppress(ValueError):  # out of the range of the drafter's other fields
        changed = dataclasses.replace(method, drafter=dataclasses.replace(drafter, **{field: size}))
        if _nodes(model, changed, method_params) == nodes:
          return changed
  return method


def _nodes(model: Model, method: Speculative, method_params: PyTree) -> int:
  ids, length = jnp.zeros((1, 8), jnp.int32), jnp.asarray([8])
  zero = jnp.zeros((1,), jnp.int32)
  request = Request(
    rules=Sampling().rules(1, model.config.vocab_size),
    limit=zero + 8,
    eos=zero - 1,
    key=jax.random.split(jax.random.key(0), 1),
  )

  def propose(method_params):
    state = method.drafter.start(method_params, ids, length, max_new=8)
    cache = model.allocate(1, 16)
    context = Context(request, last=zero, step=zero + 1, active=zero == 0, cache=cache)
    return method.drafter.propose(method_params, state, context)[0].tree.token

  return jax.eval_shape(propose, method_params).shape[1]
