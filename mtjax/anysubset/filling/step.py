"""One step of filling: draft, one forward pass, verify, decide, commit.

Apart from sampling and verifying, every part is a function of its own: tests enumerate what may be
sampled, and call the others as they are.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mtjax.anysubset.filling.method import Windowed
from mtjax.anysubset.filling.passes import (
  FillPass,
  Phase,
  first_pass,
  later_pass,
  logits_ahead,
  logits_at_first,
  logits_recalled,
)
from mtjax.anysubset.filling.state import (
  FillState,
  Problem,
  at_ranks,
  context_entries,
  decide,
  entries_at,
  no_log_prob,
)
from mtjax.anysubset.network import Network
from mtjax.draft.protocol import keys_of_drafts
from mtjax.models import Params
from mtjax.sampling.categorical import sample_categorical
from mtjax.sampling.logits import sample
from mtjax.trees import chain
from mtjax.types import Draft, DraftScheme, Verdict
from mtjax.verify import verify

# (processed logits [B, J, V], place of the first in the window) -> tokens [B, J]
Choose = Callable[[Float[Array, "B J V"], int], Int[Array, "B J"]]


def draft_window(
  method: Windowed, problem: Problem, state: FillState, phase: Phase, vocab: int, choose: Choose
) -> tuple[Int[Array, "B K"], jax.Array | None]:
  """Returns `phase.drafts` drafts, and the processed logits they come from by `choose`.

  Logits of an earlier pass are sampled all at once: a loop of small samples is slow on a CPU.
  """
  drafted = jnp.zeros((problem.total.shape[0], 0), jnp.int32)
  if not phase.drafts:
    return drafted, None
  if state.kept is not None:
    processed = state.kept[:, : phase.drafts]
    return choose(processed, 0), processed
  processed = []
  for place in range(phase.drafts):
    one = method.draft_logits(problem, state, drafted, vocab)[:, None]
    drafted = jnp.concatenate([drafted, choose(one, place)], axis=1)
    processed.append(one)
  return drafted, jnp.concatenate(processed, axis=1)


def as_draft(
  problem: Problem,
  state: FillState,
  drafted: Int[Array, "B K"],
  processed: Float[Array, "B K V"],
) -> Draft:
  """Returns the window as a chain after the last decided entry, invalid past the last target."""
  size = drafted.shape[1]
  token = jnp.pad(drafted, ((0, 0), (1, 0)))
  place = jnp.arange(size + 1)
  valid = (place == 0) | (state.count[:, None] + place - 1 < problem.total[:, None])
  q = jnp.pad(jax.nn.softmax(processed, axis=-1), ((0, 0), (0, 1), (0, 0)))
  return Draft(chain(size).tree(token, valid), DraftScheme.WITH_REPLACEMENT, q)


def apply_verdict(
  model: Network,
  params: Params,
  problem: Problem,
  state: FillState,
  phase: Phase,
  passed: FillPass,
  drafted: Int[Array, "B K"],
  verdict: Verdict,
) -> FillState:
  """Returns the state after a verdict: entries decided, contents of the final ones committed."""
  size = phase.drafts
  accepted = verdict.count - 1
  more = jnp.ones_like(accepted)
  if not phase.bonus:
    more = (accepted < jnp.minimum(size, problem.total - state.count)).astype(jnp.int32)
  place = jnp.arange(size + 1)
  token = jnp.pad(drafted, ((0, 0), (0, 1)))
  token = jnp.where(place == accepted[:, None], verdict.token[:, None], token)
  was_pending = state.pending.astype(jnp.int32)
  path = jnp.minimum(place + 1 - was_pending[:, None], size)
  active = state.active(problem)
  cache = state.cache.commit(
    passed.kv, passed.position, path, jnp.where(active, accepted + was_pending, 0)
  )
  after = decide(problem, state, token, accepted + more, accepted, passed.logits)
  if phase.ahead:
    after = after.replace(kept=logits_ahead(model, params, problem, phase, passed, accepted, after))
  if phase.recalled:
    after = after.replace(kept=logits_recalled(after, phase))
  return after.replace(cache=cache, pending=jnp.where(active, more > 0, state.pending))


def start(
  model: Network, params: Params, method: Windowed, problem: Problem, choose: Choose
) -> FillState:
  """Reads and commits the context entries, and decides the first target of each row."""
  canvas, phase = problem.canvas, method.first
  batch = problem.total.shape[0]
  passed = first_pass(model, params, problem, phase)
  index, num_context = context_entries(problem)
  path = jnp.broadcast_to(jnp.arange(index.shape[1]), index.shape)
  entries = max(p.drafts for p in (phase, *method.round)) + 1
  cache = model.allocate(batch, max(canvas.size, entries))
  state = FillState(
    cache=cache.commit(passed.kv, passed.position, path, num_context),
    token=canvas.token,
    count=jnp.zeros((batch,), jnp.int32),
    pending=jnp.zeros((batch,), bool),
    decided_at=jnp.zeros_like(canvas.token),
    drafted=jnp.zeros_like(canvas.is_context),
    forwards=jnp.zeros((batch,), jnp.int32),
    kept=None,
    log_prob=no_log_prob(problem),
  )
  one, none = jnp.ones_like(problem.total), jnp.zeros_like(problem.total)
  if problem.script is None:
    token = choose(passed.processed[:, :1], 0)
  else:
    token = problem.script.tokens_at(at_ranks(problem, none, 1))
  state = decide(problem, state, token, one, none, passed.logits[:, :1])
  if phase.ahead:
    state = state.replace(kept=logits_ahead(model, params, problem, phase, passed, none, state))
  if phase.recalled:
    state = state.replace(first=logits_at_first(model, params, problem, phase, passed, state))
    state = state.replace(kept=logits_recalled(state, phase))
  return state.replace(pending=jnp.ones((batch,), bool))


def step(
  model: Network,
  params: Params,
  method: Windowed,
  problem: Problem,
  state: FillState,
  phase: Phase,
) -> FillState:
  """Runs one forward pass: draft, read, verify, decide, commit."""
  vocab = model.config.vocab_size
  keys = keys_of_drafts(problem.key, state.count, max(phase.drafts, 1))

  def choose(processed, place):
    return jax.vmap(jax.vmap(sample_categorical))(
      processed, keys[:, place : place + processed.shape[1]]
    )

  if problem.script is not None:
    drafted, verdict = _scripted(problem, state, phase)
    passed = later_pass(model, params, problem, state, phase, drafted)
    return apply_verdict(model, params, problem, state, phase, passed, drafted, verdict)
  drafted, processed = draft_window(method, problem, state, phase, vocab, choose)
  passed = later_pass(model, params, problem, state, phase, drafted)
  if processed is not None:
    draft = as_draft(problem, state, drafted, processed)
    verdict = verify(method.verifier, passed.processed, draft, problem.key, state.count)
  else:
    token = sample(passed.processed[:, 0], problem.key, state.count)
    verdict = Verdict(jnp.zeros((len(token), 1), jnp.int32), jnp.ones_like(token), token)
  return apply_verdict(model, params, problem, state, phase, passed, drafted, verdict)


def _scripted(
  problem: Problem, state: FillState, phase: Phase
) -> tuple[Int[Array, "B K"], Verdict]:
  """Returns the window that becomes text, and the verdict that a script has on it.

  What was drafted in place of a token that was refused is not known: no entry before it sees it.
  """
  assert problem.script is not None
  index = entries_at(problem, state.count, phase.drafts + 1)
  token = problem.script.tokens_at(index)
  accepted = problem.script.drafts_in(state.forwards + 1, index)
  last = jnp.take_along_axis(token, accepted[:, None], axis=1)[:, 0]
  return token[:, :-1], Verdict(jnp.zeros_like(index), accepted + 1, last)
