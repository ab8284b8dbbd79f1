"""The arguments of a generation: checked, and as arrays of static sizes."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from mtjax.arguments import TokenIds, integer
from mtjax.constraints.batch import Constraint, join
from mtjax.decode.prefix import Prefix, parts_of, text_size
from mtjax.models import Model, check_causal
from mtjax.rounds.size_buckets import bucket
from mtjax.rounds.state import DecodeState, Request
from mtjax.rounds.stop_strings import StopStrings
from mtjax.sampling.constraint import Automata
from mtjax.sampling.logits import Sampling, Seeds, row_keys
from mtjax.sharding import pad_rows, padded_rows


@dataclasses.dataclass(frozen=True)
class DecodeJob:
  """Checked arguments of a generation, as arrays of static size."""

  # Request, prompt [B, P], length [B], and a cache if there is a prefix. On a mesh there may be
  # more rows than texts: their limit is 0, so that they have ended before the first token.
  arrays: tuple
  lengths: list[int]  # of the texts alone
  capacity: int
  max_new: int
  head_parts: int  # `Prefix.head_parts` of what the job computes

  @property
  def batch(self) -> int:
    """The number of texts."""
    return len(self.lengths)

  def padded(self, mesh: Mesh | None) -> "DecodeJob":
    """Returns the job with as many rows more as the data axis of the mesh needs."""
    rows = padded_rows(self.batch, mesh)
    if rows == self.batch:
      return self
    request, prompt, length, *known = self.arrays
    real = jnp.arange(rows) < self.batch
    rules = request.rules
    per_row = pad_rows(rules.replace(constraint=None), rows)
    if rules.constraint is not None:
      which = pad_rows(rules.constraint.which, rows)
      per_row = per_row.replace(constraint=rules.constraint.replace(which=which))
    request = request.replace(
      rules=per_row,
      limit=jnp.where(real, pad_rows(request.limit, rows), 0),
      key=pad_rows(request.key, rows),
    )
    length = jnp.where(real, pad_rows(length, rows), 1)
    caches = (
      cache.replace(length=jnp.where(real, cache.length, 0))
      for cache in (pad_rows(cache, rows) for cache in known)
    )
    return dataclasses.replace(self, arrays=(request, pad_rows(prompt, rows), length, *caches))

  def prefix(self, state: DecodeState) -> Prefix:
    """Returns what is known of the one text of a job."""
    prompt, (length,) = np.asarray(self.arrays[1])[0], self.lengths
    text = [*prompt[:length].tolist(), *np.asarray(state.tokens)[0].tolist()]
    cache = state.cache
    if cache.length.shape[0] > 1:
      cache = jax.tree.map(lambda x: x[:1], cache)
    return Prefix(tuple(text[: int(cache.length[0])]), cache, self.head_parts)


def prepare(
  model: Model,
  prompts: Any,
  max_tokens: Any,
  sampling: Sampling | None,
  key: Seeds,
  eos: Sequence[int],
  stop: StopStrings | None,
  constraint: Constraint = None,
  prefix: Prefix | None = None,
) -> DecodeJob:
  """Returns the arguments of `mtjax.decode.generation.generate` as a job, or raises its errors."""
  check_causal(model, "the model")
  vocab, max_position = model.config.vocab_size, model.config.max_position
  prompts = [_token_ids(row, prompt) for row, prompt in enumerate(prompts)]
  if not prompts:
    raise ValueError("there is no prompt: give at least one")
  limits = list(max_tokens) if np.ndim(max_tokens) else [max_tokens] * len(prompts)
  limits = [integer(limit, "max_tokens") for limit in limits]
  if len(limits) != len(prompts):
    raise ValueError(f"{len(limits)} values of max_tokens for {len(prompts)} prompts")
  for row, (prompt, limit) in enumerate(zip(prompts, limits, strict=True)):
    if not prompt:
      raise ValueError(f"prompt {row} is empty: give it at least one token (the model's BOS, say)")
    if min(prompt) < 0 or max(prompt) >= vocab:
      raise ValueError(f"prompt {row} has token ids outside 0..{vocab - 1}")
    if limit < 1:
      raise ValueError(f"max_tokens must be at least 1, got {limit} for prompt {row}")
    if len(prompt) + limit > max_position:
      raise ValueError(
        f"prompt {row} has {len(prompt)} tokens; with max_tokens {limit} that makes "
        f"{len(prompt) + limit}, and the model has {max_position} positions"
      )
  outside = [token for token in eos if not 0 <= token < vocab]
  if outside:
    raise ValueError(f"eos names tokens {outside} outside a vocabulary of {vocab}")
  lengths = [len(prompt) for prompt in prompts]
  if prefix is None:
    size = bucket(max(lengths), maximum=max_position)
  elif len(prompts) == 1:
    size = text_size(lengths[0], max_position)
  else:
    raise ValueError(f"a prefix is of one text, got {len(prompts)} prompts")
  max_new = bucket(max(limits), maximum=max_position)
  padded = np.zeros((len(prompts), size), np.int32)
  for row, prompt in enumerate(prompts):
    padded[row, : len(prompt)] = prompt
  sampling = sampling or Sampling()
  request = Request(
    rules=sampling.rules(len(prompts), vocab).replace(
      constraint=_automata(constraint, limits, vocab, eos, stop, sampling)
    ),
    limit=jnp.asarray(limits, jnp.int32),
    eos=jnp.asarray(tuple(eos) or (-1,), jnp.int32),
    key=row_keys(key, len(prompts)),
    stop=stop,
  )
  capacity = min(size + max_new, max_position)
  known = () if prefix is None else (prefix.cache_for(model, prompts[0], capacity),)
  arrays = (request, jnp.asarray(padded), jnp.asarray(lengths, jnp.int32), *known)
  return DecodeJob(arrays, lengths, capacity, max_new, head_parts=parts_of(model))


def _automata(constraint, limits, vocab, eos, stop, sampling: Sampling) -> Automata | None:
  automata = join(constraint, limits, vocab, eos)
  if automata is None:
    return None
  if stop is not None:
    raise ValueError(
      "a stop string may end a text before its constraint is satisfied: give no stop beside one"
    )
  sampling.check_no_ban()
  return automata


def _token_ids(row: int, prompt: TokenIds) -> list[int]:
  if isinstance(prompt, str):
    raise ValueError(
      f"prompt {row} is the text {prompt!r}: give token ids here, and it is "
      "TextModel.generate that takes texts"
    )
  if not isinstance(prompt, Iterable):
    raise ValueError(f"prompt {row} is {prompt!r}: prompts are a list of lists of token ids")
  return [integer(token, f"a token of prompt {row}") for token in prompt]
