"""Texts that a model writes after contexts, with the settings of each request."""

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from mtjax.evaluate.harness.pairs import encode_prompt
from mtjax.evaluate.tasks.run import name_number
from mtjax.sampling.logits import Sampling, seed_key
from mtjax.text import MethodForTarget, TextModel

# Names of the same limit in lm-evaluation-harness, the first one that is there holds.
_LIMITS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
_FILTERS = ("top_k", "top_p", "min_p", "repetition_penalty", "presence_penalty")
_OTHERS = ("until", "do_sample", "temperature", "num_beams")


@dataclasses.dataclass(frozen=True)
class WritingSettings:
  """The strings that end a text, its largest number of tokens, and how its tokens are sampled."""

  stop: tuple[str, ...]
  max_tokens: int
  sampling: Sampling

  @classmethod
  def of(cls, generation: Mapping[str, Any], *, max_tokens: int) -> "WritingSettings":
    """Returns the settings of a request's `generation_kwargs`.

    `until` is one string or several; the model's end tokens always end a text. `max_tokens` holds
    where none of the names of the limit is there. Tokens are sampled if `do_sample` says so, or if
    it is missing and the temperature is above 0. Raises ValueError for a setting that is not known,
    for more than one beam, and for sampling without a temperature.
    """
    known = (*_OTHERS, *_LIMITS, *_FILTERS)
    unknown = sorted(set(generation) - set(known))
    if unknown:
      raise ValueError(f"generation settings {unknown} are not known; there is: {', '.join(known)}")
    if generation.get("num_beams", 1) != 1:
      raise ValueError(f"num_beams is {generation['num_beams']}: there is no beam search, give 1")
    until = generation.get("until") or ()
    until = (until,) if isinstance(until, str) else tuple(until)
    limits = (generation.get(name) for name in _LIMITS)
    temperature = float(generation.get("temperature") or 0.0)
    sampled = generation.get("do_sample")
    if sampled and not temperature:
      raise ValueError("do_sample is true but temperature is 0: give temperature=1.0, for example")
    filters = {name: generation[name] for name in _FILTERS if generation.get(name) is not None}
    return cls(
      stop=tuple(text for text in until if text),
      max_tokens=int(next((limit for limit in limits if limit is not None), max_tokens)),
      sampling=Sampling(temperature=0.0 if sampled is False else temperature, **filters),
    )


def write_until(
  model: TextModel,
  requests: Sequence[tuple[str, WritingSettings]],
  *,
  method: MethodForTarget,
  max_length: int,
  batch: int = 8,
  seed: int = 0,
  each: Callable[[int, str], None] = lambda index, text: None,
) -> list[str]:
  """Returns the text that follows each context, in the order of the requests.

  Requests with the same settings and contexts of similar length share a batch. A context loses the
  first of its tokens if they and the answer exceed `max_length`. A text ends before a stop string
  and has no special token. Samples depend on the seed, the context, and how often it was there
  before; not on the batch. `each` is called with an index and its text as soon as it is known.

  Raises ValueError, before any pass, for an answer that leaves no token of the context.
  """
  prompts = []
  for index, (context, settings) in enumerate(requests):
    if not 1 <= settings.max_tokens < max_length:
      raise ValueError(
        f"request {index} may write {settings.max_tokens} tokens: max_gen_toks must be from 1 to "
        f"max_length - 1 = {max_length - 1}, which leaves a token of the context"
      )
    kept = max_length - settings.max_tokens
    prompts.append(encode_prompt(model.tokenizer, context)[-kept:])
  keys = _keys(seed, [context for context, _ in requests])
  groups = defaultdict(list)
  for index, (_, settings) in enumerate(requests):
    groups[settings].append(index)
  out: dict[int, str] = {}
  for settings, members in groups.items():
    members.sort(key=lambda index: -len(prompts[index]))
    for first in range(0, len(members), batch):
      part = members[first : first + batch]
      # A batch that is not full has rows of one token: all share one program.
      empty = batch - len(part)
      completions, _ = model.generate(
        [prompts[index] for index in part] + [prompts[part[0]][-1:]] * empty,
        stop=settings.stop,
        method=method,
        max_tokens=[settings.max_tokens] * len(part) + [1] * empty,
        sampling=settings.sampling,
        key=keys[jnp.array(part + part[:1] * empty)],
      )
      for index, completion in zip(part, completions, strict=False):
        out[index] = completion.text
        each(index, completion.text)
  return [out[index] for index in range(len(requests))]


def _keys(seed: int, contexts: Sequence[str]) -> jax.Array:
  """Returns a key per context; a context that is repeated gets another one each time."""
  seen: Counter[str] = Counter()
  numbers = []
  for context in contexts:
    numbers.append((name_number(context), seen[context]))
    seen[context] += 1
  key = seed_key(seed)
  return jax.vmap(lambda pair: jax.random.fold_in(jax.random.fold_in(key, pair[0]), pair[1]))(
    jnp.array(numbers).reshape(-1, 2)
  )
