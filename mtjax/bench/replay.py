"""Retrieval drafters on existing text: tokens per forward of a target that would write that text.

No model runs. What a text repeats of itself and of others decides, so drafters can be compared on
text that no small model would write, with any tokenizer.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PyTree

from mtjax.cache import KVCache
from mtjax.decode.generation import generate
from mtjax.decode.speculative import Speculative
from mtjax.draft import Drafter, PromptLookup, SuffixStore, Trie, TrieStore
from mtjax.models import Model, Params, TransformerConfig, uniform_layers
from mtjax.rounds.size_buckets import bucket
from mtjax.types import Frontier, LayerKV, Output

Pair = tuple[list[int], list[int]]  # prompt, continuation


@dataclasses.dataclass(frozen=True)
class ReplayTarget(Model):
  """A model that predicts token i + 1 of a text at position i. Params: the texts [B, L]."""

  @classmethod
  def of(cls, vocab_size: int, max_position: int) -> "ReplayTarget":
    """Returns a target for texts of up to `max_position` tokens."""
    return cls(
      TransformerConfig(
        vocab_size=vocab_size,
        dim=2,
        heads=1,
        kv_heads=1,
        head_dim=2,
        mlp_dim=2,
        layers=uniform_layers(1),
        max_position=max_position,
      )
    )

  def forward(
    self,
    params: Params,
    frontier: Frontier,
    cache: KVCache | None = None,
    rows: Int[Array, "B R"] | None = None,
  ) -> Output:
    position = frontier.position
    if rows is not None:
      position = jnp.take_along_axis(position, rows, axis=1)
    place = jnp.minimum(position + 1, params.shape[1] - 1)
    said = jnp.take_along_axis(params, place, axis=1)
    batch, size = frontier.token.shape
    nothing = jnp.zeros((batch, 1, size, 2))
    return Output(
      logits=jax.nn.one_hot(said, self.config.vocab_size),
      features=jnp.zeros((batch, position.shape[1] or size, 2)),
      kv=(LayerKV(nothing, nothing),),
    )


def replay(
  pairs: Sequence[Pair],
  drafter: Drafter,
  params: PyTree | Callable[[], PyTree],
  *,
  vocab_size: int,
) -> float:
  """Returns tokens per target forward over all continuations, one by one, including prefills.

  params: the drafter's, or a function that makes new ones for each pair. Raises ValueError when
  there is no pair, and RuntimeError if decoding writes anything but the continuation.
  """
  if not pairs:
    raise ValueError("there is no text to replay")
  longest = bucket(max(len(prompt) + len(rest) for prompt, rest in pairs))
  target = ReplayTarget.of(vocab_size, longest)
  tokens = forwards = 0
  for prompt, continuation in pairs:
    text = np.zeros((1, longest), np.int32)
    text[0, : len(prompt) + len(continuation)] = [*prompt, *continuation]
    run = generate(
      target,
      jnp.asarray(text),
      [prompt],
      method=Speculative(drafter),
      method_params=params() if callable(params) else params,
      max_tokens=len(continuation),
    )
    if run.tokens != [list(continuation)]:
      raise RuntimeError("the replayed text differs from the input: a fault of the decoder")
    tokens += run.counters["tokens"]
    forwards += run.counters["target_forwards"]
  return tokens / forwards


def split(
  documents: Sequence[Int[np.ndarray, " L"]], count: int, *, prompt: int, tokens: int
) -> tuple[list[Pair], list[list[int]]]:
  """Returns `count` documents, spread evenly, as pairs, and the continuations of all others.

  The prompt is the first half of a document, its last `prompt` tokens at most; up to `tokens`
  tokens follow. Documents of fewer than 16 tokens are left out, and duplicates.
  Raises ValueError when fewer than `count` are left.
  """
  unique = list(dict.fromkeys(tuple(d.tolist()) for d in documents if len(d) >= 16))
  if len(unique) < count:
    raise ValueError(f"{count} documents of at least 16 tokens are needed, got {len(unique)}")

  def pair(document) -> Pair:
    half = len(document) // 2
    return list(document[max(half - prompt, 0) : half]), list(document[half : half + tokens])

  chosen = {index * len(unique) // count for index in range(count)}
  others = [pair(d)[1] for index, d in enumerate(unique) if index not in chosen]
  return [pair(unique[index]) for index in sorted(chosen)], others


def compare(
  pairs: Sequence[Pair], others: Sequence[Sequence[int]], *, size: int, vocab_size: int
) -> Iterator[tuple[str, float]]:
  """Yields names and tokens per forward of prompt lookup, trie and suffix, trees of `size` nodes.

  "alone": an empty store for every text; "cold": one store that is empty before the first text;
  "warmed": one store that has read `others` before.
  """

  def run(drafter, params):
    return replay(pairs, drafter, params, vocab_size=vocab_size)

  yield "lookup", run(PromptLookup(length=size - 1), None)
  for name, make in (("trie", TrieStore), ("suffix", SuffixStore)):
    stores = []  # a reference keeps a store alive

    def fresh(make=make, stores=stores):
      stores[:] = [make(vocab_size)]
      return stores[0].handle

    yield f"{name}, alone", run(Trie(size), fresh)
    yield f"{name}, cold", run(Trie(size), fresh())
    warmed = make(vocab_size)
    warmed.warm(others)
    yield f"{name}, warmed", run(Trie(size), warmed.handle)
