"""Generation: prefill, then rounds of propose, forward, accept, commit in one XLA program."""

import dataclasses
from collections.abc import Callable, Generator, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from mtjax import hosts
from mtjax.arguments import TokenIds, Whole, Wholes, integer
from mtjax.cache import KVCache
from mtjax.constraints.batch import Constraint
from mtjax.decode.card import generation_card
from mtjax.decode.history import observe_token, record, target_probs
from mtjax.decode.job import DecodeJob, prepare
from mtjax.decode.method import Autoregressive, Method, emit_next
from mtjax.decode.placement import chosen_mesh, put_inputs
from mtjax.decode.prefix import Prefix
from mtjax.display.short import counted
from mtjax.models import Model, Params, check_causal
from mtjax.rounds import run
from mtjax.rounds.history import RoundRecord
from mtjax.rounds.placement import stepped_on
from mtjax.rounds.prefill import commit_prompt, commit_rest
from mtjax.rounds.state import DecodeState, Finish, Request
from mtjax.rounds.stop_strings import StopStrings
from mtjax.rounds.stopwatch import Stopwatch
from mtjax.sampling.logits import Sampling, Seeds
from mtjax.sharding import MeshLike, on_mesh

MAX_TOKENS = 128  # new ones per row, unless a request says otherwise


@dataclasses.dataclass(frozen=True)
class Generation:
  """Generated tokens and their cost. Tokens include a final end-of-sequence token, if any."""

  tokens: list[list[int]]
  finish: list[str]  # "eos", "stop" or "length", one per row
  counters: dict[str, Any]  # `mtjax.registry.counters.DECODING` explains each
  drafted: list[list[bool]]  # True for tokens that were accepted drafts, not the target's choice
  history: list[RoundRecord] | None = None  # what each round did; None: it was not asked for
  pieces: list[list[str]] | None = None  # text of each token; None: made without a tokenizer
  rounds: list[int] = dataclasses.field(default_factory=list)  # of each row, after its prompt

  def __repr__(self) -> str:
    cost = self.counters
    ends = ", ".join(f"{name} {self.finish.count(name)}" for name in dict.fromkeys(self.finish))
    return (
      f"Generation({counted(len(self.tokens), 'row')}, {counted(cost['tokens'], 'token')}, "
      f"{cost['tokens_per_forward']:.2f} tokens per forward, {cost['seconds']:.3g} s, "
      f"{cost['tokens_per_second']:,.0f} tokens/s, finish: {ends})"
    )

  def _repr_html_(self) -> str:
    """Returns a card: its cost, and each row's tokens in the tint of who proposed them."""
    return generation_card(repr(self), self.tokens, self.drafted, self.pieces, self.history)


def prefill(
  model: Model,
  params: Params,
  request: Request,
  prompt: Int[Array, "B P"],
  length: Int[Array, " B"],
  known: KVCache | None = None,
  *,
  capacity: int,
  max_new: int,
) -> DecodeState:
  """Commits the prompts and emits the first token of each row.

  Prompts are padded on the right, lengths at least 1. A cache of the same capacity may hold the
  beginning of each prompt (`known`). Raises ValueError for an any-subset model.
  """
  sizes = dict(capacity=capacity, max_new=max_new)
  state, logits = _committed(model, params, request, prompt, length, known, **sizes)
  return emit_next(state, request, logits)


def _committed(
  model, params, request: Request, prompt, length, known=None, *, capacity: int, max_new: int
) -> tuple[DecodeState, Float[Array, "B 1 V"]]:
  """Returns the state with the prompts committed, and the logits of each row's first token."""
  check_causal(model, "the model")
  batch = prompt.shape[0]
  if known is None:
    cache, logits = commit_prompt(model, params, prompt, length, capacity)
  else:
    cache, logits = commit_rest(model, params, prompt, length, known)
  history = request.rules.start(prompt, length, model.config.vocab_size, request.limit)
  state = DecodeState(
    cache=cache,
    tokens=jnp.zeros((batch, max_new), jnp.int32),
    drafted=jnp.zeros((batch, max_new), bool),
    count=jnp.zeros((batch,), jnp.int32),
    finish=jnp.where(request.limit > 0, int(Finish.RUNNING), int(Finish.LENGTH)),
    stop_state=jnp.zeros((batch,), jnp.int32),
    rounds=jnp.zeros((batch,), jnp.int32),
    history=history,
  )
  return state, logits


@dataclasses.dataclass(frozen=True)
class DecodeProgram:
  """A `rounds.Program`. Inputs: (params, method's params, request, prompt [B, P], length [B]).

  A cache that holds the beginning of each prompt may follow them.
  """

  model: Model
  method: Method
  capacity: int
  max_new: int

  def begin(self, inputs: PyTree) -> DecodeState:
    params, _, *job = inputs
    return self._started(prefill(self.model, params, *job, **self._sizes), inputs)

  def observe_begin(self, inputs: PyTree) -> tuple[DecodeState, PyTree]:
    params, _, request, prompt, length, *known = inputs
    before, logits = _committed(self.model, params, request, prompt, length, *known, **self._sizes)
    after = emit_next(before, request, logits)
    last = jnp.take_along_axis(prompt, length[:, None] - 1, axis=1)[:, 0]
    p = target_probs(logits, request.rules, before.history)
    return self._started(after, inputs), observe_token(last, before.active, after.last, p)

  @property
  def _sizes(self) -> dict[str, int]:
    return dict(capacity=self.capacity, max_new=self.max_new)

  def _started(self, state: DecodeState, inputs) -> DecodeState:
    _, method_params, _, prompt, length, *_ = inputs
    return state.replace(method=self.method.start(method_params, prompt, length, **self._sizes))

  def stages(self, inputs: PyTree) -> run.Stages:
    params, method_params, request, *_ = inputs
    return self.method.stages(self.model, params, method_params, request)

  def observe(self, observed: PyTree) -> PyTree:
    return self.method.observe(observed)

  def active(self, inputs: PyTree, state: DecodeState) -> Bool[Array, " B"]:
    return state.active


def generate(
  model: Model,
  params: Params,
  prompts: Sequence[TokenIds],
  *,
  method: Method = Autoregressive(),
  method_params: PyTree = None,
  max_tokens: Wholes = MAX_TOKENS,
  sampling: Sampling | None = None,
  key: Seeds = 0,
  eos: Sequence[int] = (),
  stop: StopStrings | None = None,
  constraint: Constraint = None,
  history: bool = False,
  mesh: MeshLike = None,
) -> Generation:
  """Continues each prompt by up to `max_tokens` tokens: prefill and all rounds in one program.

  `method`: how a round makes several tokens (see `mtjax.decode.speculative`), with its
  parameters.
  `key`: a seed or key, folded with the row index, or a [B] array of keys, one per row. `eos`: token
  ids that end a row. `stop`: compiled stop strings; the token in which one ends is the last.
  `constraint`: what a text must match (`mtjax.constraints`), one for all rows or one per row; None:
  anything. Such a text is complete whether an end token or the limit ends it.
  Lengths are rounded up to the sizes of `mtjax.rounds.size_buckets`: prompts and limits may change
  within one without compiling again.
  `history`: whether to keep what each round drafted and accepted, and the time of its stages
  (`mtjax.rounds.history`). The tokens are the same; every stage is then a program of its own, which
  is slower. Without it nothing is different.
  `mesh`: the devices to run on, as `mtjax.sharding.parse_mesh` takes it ("data:2,model:4"); None:
  where the parameters are, which may be a mesh that they were put on. Rows are split over `data`,
  and where it does not divide them, rows are added that have ended from the beginning. Weights and
  heads are split over `model`, the slots of caches over `sequence`. Random numbers are those of one
  device, and so are tokens up to rounding.

  Raises ValueError, before compilation, for an any-subset model (see `mtjax.anysubset.infill`), no
  prompt, an empty prompt, prompts that are not token ids, ids outside the vocabulary,
  max_tokens < 1, prompt + max_tokens beyond the model's positions, settings out of their range,
  a method that cannot decode this model, and a constraint that no text of max_tokens satisfies, or
  that has no `eos`, or `stop` beside it; for a mesh that does not exist here, for parameters on a
  mesh that `mtjax.sharding.make_mesh` did not make, and for weights that are packed for one CPU.
  """
  mesh = chosen_mesh(mesh, params)
  with on_mesh(mesh):
    method.check(model)
    job = prepare(model, prompts, max_tokens, sampling, key, eos, stop, constraint).padded(mesh)
    program = DecodeProgram(model, method, job.capacity, job.max_new)
    inputs = put_inputs(job, model, params, method_params, mesh)
    if not history:
      return _collect(method, job, *run.run(program, inputs))
    kept: list[RoundRecord] = []
    *_, (state, clock) = record(program, inputs, kept.append, batch=job.batch)
    return _collect(method, job, state, clock, kept)


def stream(
  model: Model,
  params: Params,
  prompts: Sequence[TokenIds],
  *,
  every: Whole = 8,
  on_finish: Callable[[Generation], None] | None = None,
  on_record: Callable[[RoundRecord], None] | None = None,
  method: Method = Autoregressive(),
  method_params: PyTree = None,
  history: bool = False,
  prefix: Prefix | None = None,
  on_prefix: Callable[[Prefix], None] | None = None,
  mesh: MeshLike = None,
  **settings: Any,
) -> Generator[list[list[int]]]:
  """Yields the new tokens of each row: the rounds of `generate`, stepped from Python.

  `every` rounds run between two yields (the first token comes alone, after prefill). Takes the
  settings of `generate`, emits the same tokens, raises the same errors, at once rather than on
  the first `next`. `on_finish` receives the whole Generation at the end, and `on_record` each
  record of a history when its round has run. Raises ValueError for `on_record` without `history`.

  For one prompt, `on_prefix` receives what is known of the text at the end, or when the iterator is
  closed before, and `prefix` takes it: what a later prompt has in common with this text, from the
  beginning, is not computed again. Up to rounding, its tokens are those without it. Drafters with a
  model of their own read the whole prompt.
  """
  every = integer(every, "every")
  if every < 1:
    raise ValueError(f"every must be at least 1, got {every}")
  if on_record is not None and not history:
    raise ValueError("on_record receives the records of a history: give history=True too")
  defaults: dict[str, Any] = dict(
    max_tokens=MAX_TOKENS, sampling=None, key=0, eos=(), stop=None, constraint=None
  )
  unknown = sorted(set(settings) - set(defaults))
  if unknown:
    raise TypeError(f"stream() got unexpected settings {unknown}; it takes {sorted(defaults)}")
  mesh = chosen_mesh(mesh, params)
  with on_mesh(mesh):
    method.check(model)
    job = prepare(model, prompts, prefix=prefix, **(defaults | settings)).padded(mesh)
    if on_prefix is not None and job.batch != 1:
      raise ValueError(f"on_prefix receives the text of one prompt, got {job.batch} prompts")
    inputs = put_inputs(job, model, params, method_params, mesh)
  program = DecodeProgram(model, method, job.capacity, job.max_new)
  kept: list[RoundRecord] | None = None
  if history:
    kept = []
    keep = _both(kept.append, on_record)
    states = record(program, inputs, keep, batch=job.batch, every=every)
  else:
    states = run.stream(program, inputs, every=every)
  return _stream(stepped_on(mesh, states), method, job, on_finish, on_prefix, kept)


def _both(first: Callable, second: Callable | None) -> Callable:
  def call(value):
    first(value)
    if second is not None:
      second(value)

  return call


def _stream(states, method, job, on_finish, on_prefix, kept):
  shown = np.zeros(job.batch, int)
  try:
    for state, clock in states:  # noqa: B007, the last ones are collected
      tokens, count = hosts.whole(state.tokens), np.array(hosts.whole(state.count))[: job.batch]
      yield [tokens[row, shown[row] : count[row]].tolist() for row in range(job.batch)]
      shown = count
  except GeneratorExit:
    if on_prefix is not None:
      on_prefix(job.prefix(state))
    raise
  if on_prefix is not None:
    on_prefix(job.prefix(state))
  if on_finish is not None:
    on_finish(_collect(method, job, state, clock, kept))


def _collect(
  method: Method,
  job: DecodeJob,
  state: DecodeState,
  clock: Stopwatch,
  history: list[RoundRecord] | None = None,
) -> Generation:
  of_texts = (x[: job.batch] for x in map(hosts.whole, (state.tokens, state.count, state.finish)))
  tokens, count, finish = of_texts
  per_row = hosts.whole(state.rounds)
  emitted = int(count.sum())
  # The prefill is a target forward too: it emits each row's first token.
  forwards = int(per_row.sum()) + job.batch
  drafted = hosts.whole(state.drafted)
  of_method = method.counters(state.method, int(per_row.sum()))
  return Generation(
    tokens=[tokens[row, : count[row]].tolist() for row in range(job.batch)],
    drafted=[drafted[row, : count[row]].tolist() for row in range(job.batch)],
    finish=[Finish(int(value)).name.lower() for value in finish],
    history=history,
    rounds=per_row[: job.batch].tolist(),
    counters=dict(
      prompt_tokens=sum(job.lengths),
      tokens=emitted,
      target_forwards=forwards,
      **{**of_method, "entries": sum(job.lengths) + of_method["entries"]},
      tokens_per_forward=emitted / forwards,
      seconds=clock.seconds,
      compile_seconds=clock.compile_seconds,
      tokens_per_second=emitted / clock.seconds,
    ),
  )
