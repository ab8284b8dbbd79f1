"""Compares imported models with transformers on torch: the same logits, the same greedy tokens.

Each family is a tiny random model, with weights so large that every feature shows in the logits,
and with prompts longer than its sliding window. It needs the extra `parity`.
"""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mtjax import checkpoints, frontier
from mtjax.decode.generation import generate
from mtjax.models import Model, Params

TOLERANCE = 1e-4  # largest difference of float32 logits
NEW_TOKENS = 64
VOCAB = 96
# Lengths of the rows of a batch, and the number of tokens per row that are cached before the rest.
LENGTHS, CACHED = (24, 17, 11), (13, 16, 1)

_SIZES = dict(
  vocab_size=VOCAB,
  hidden_size=32,
  intermediate_size=48,
  num_hidden_layers=2,
  num_attention_heads=4,
  num_key_value_heads=2,
  max_position_embeddings=128,
)
_ALTERNATING = ["sliding_attention", "full_attention"]
_LLAMA3 = dict(
  rope_type="llama3",
  rope_theta=500_000.0,
  factor=8.0,
  low_freq_factor=1.0,
  high_freq_factor=4.0,
  original_max_position_embeddings=32,
)
_YARN = dict(rope_type="yarn", rope_theta=10_000.0, factor=4.0, original_max_position_embeddings=32)
_LINEAR = dict(rope_type="linear", factor=4.0)

# Name -> (config class of transformers, what differs from _SIZES).
CASES: dict[str, tuple[str, dict[str, Any]]] = {
  "llama 2": ("LlamaConfig", dict(num_key_value_heads=4)),
  "llama 3": ("LlamaConfig", dict(rope_parameters=_LLAMA3, tie_word_embeddings=True)),
  "llama linear": ("LlamaConfig", dict(rope_parameters=dict(_LINEAR, rope_theta=1e4))),
  "llama yarn": (
    "LlamaConfig",
    dict(rope_parameters=_YARN, attention_bias=True, mlp_bias=True),
  ),
  "mistral": ("MistralConfig", dict(sliding_window=7, head_dim=12)),
  "qwen 2": (
    "Qwen2Config",
    dict(use_sliding_window=True, sliding_window=7, max_window_layers=1),
  ),
  "qwen 3": ("Qwen3Config", dict(head_dim=16, tie_word_embeddings=True)),
  "smollm 3": ("SmolLM3Config", dict(no_rope_layers=[1, 0])),
  "olmo 2": ("Olmo2Config", {}),
  "gemma 2": (
    "Gemma2Config",
    dict(
      head_dim=16,
      sliding_window=7,
      query_pre_attn_scalar=24,
      # Low enough to bend the scores and logits of a model this small.
      attn_logit_softcapping=4.0,
      final_logit_softcapping=6.0,
    ),
  ),
  "gemma 3": (
    "Gemma3TextConfig",
    dict(
      head_dim=16,
      sliding_window=7,
      query_pre_attn_scalar=24,
      layer_types=_ALTERNATING,
      rope_parameters=dict(
        sliding_attention=dict(rope_type="default", rope_theta=10_000.0),
        full_attention=dict(_LINEAR, rope_theta=1_000_000.0),
      ),
    ),
  ),
  "gpt 2": ("GPT2Config", {}),
}
_GPT2_NAMES = dict(
  hidden_size="n_embd",
  intermediate_size="n_inner",
  num_hidden_layers="n_layer",
  num_attention_heads="n_head",
  max_position_embeddings="n_positions",
)


@dataclasses.dataclass(frozen=True)
class Parity:
  """The largest differences of logits without and with a cache, and if greedy tokens are equal."""

  uncached: float
  cached: float
  same_tokens: bool

  @property
  def passed(self) -> bool:
    # Written so that NaN fails.
    return self.uncached <= TOLERANCE and self.cached <= TOLERANCE and self.same_tokens


def make_oracle(name: str, seed: int = 0) -> Any:
  """Returns a random model of transformers for one of CASES.

  Raises ImportError without mtjax[parity].
  """
  torch, transformers = _packages()
  kind, settings = CASES[name]
  sizes = dict(_SIZES)
  if kind == "GPT2Config":
    del sizes["num_key_value_heads"]
    sizes = {_GPT2_NAMES.get(field, field): value for field, value in sizes.items()}
  ends = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"))
  config = getattr(transformers, kind)(**{**sizes, **ends, **settings})
  config._attn_implementation = "eager"  # the only implementation that has soft caps
  torch.manual_seed(seed)
  oracle = transformers.AutoModelForCausalLM.from_config(config).eval().float()
  with torch.no_grad():
    for parameter in oracle.parameters():
      noise = torch.randn_like(parameter)
      # Norms and biases keep their means, or the model would hardly depend on its input.
      parameter.copy_(0.3 * noise if parameter.ndim > 1 else parameter + 0.2 * noise)
  return oracle


def compare(oracle: Any, folder: str | Path) -> Parity:
  """Compares the checkpoint in `folder`, read by mtjax, with a model of transformers."""
  model, params = checkpoints.load(folder, dtype="float32")
  rows = prompts()
  expected = oracle_logits(oracle, rows)
  tokens = generate(model, params, rows, max_tokens=NEW_TOKENS).tokens
  return Parity(
    uncached=difference(expected, logits(model, params, rows)),
    cached=difference(
      [x[n:] for x, n in zip(expected, CACHED, strict=True)], cached_logits(model, params, rows)
    ),
    same_tokens=tokens == oracle_tokens(oracle, rows),
  )


def prompts(seed: int = 0) -> list[list[int]]:
  """Returns random prompts with LENGTHS tokens."""
  rng = np.random.default_rng(seed)
  return [rng.integers(0, VOCAB, length).tolist() for length in LENGTHS]


def oracle_logits(oracle: Any, rows: Sequence[Sequence[int]]) -> list[np.ndarray]:
  """Returns logits [length, V] per row, each row run alone, without padding."""
  torch, _ = _packages()
  with torch.inference_mode():
    return [oracle(torch.tensor([row])).logits[0].float().numpy() for row in rows]


def oracle_tokens(oracle: Any, rows: Sequence[Sequence[int]]) -> list[list[int]]:
  """Returns the tokens that greedy decoding of transformers adds to each row."""
  torch, _ = _packages()
  out = []
  for row in rows:
    ids = torch.tensor([row])
    with torch.inference_mode():
      # Without a mask, generate would treat tokens that equal pad_token_id as padding.
      new = oracle.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=NEW_TOKENS,
        do_sample=False,
        pad_token_id=0,
      )
    out.append(new[0, len(row) :].tolist())
  return out


def logits(model: Model, params: Params, rows: Sequence[Sequence[int]]) -> list[np.ndarray]:
  """Returns logits [length, V] per row, from one padded batch."""
  out = np.asarray(_forward(model, params, *_padded(rows)).logits)
  return [x[: len(row)] for x, row in zip(out, rows, strict=True)]


def cached_logits(model: Model, params: Params, rows: Sequence[Sequence[int]]) -> list[np.ndarray]:
  """Returns logits [length - n, V] per row, after its first n (of CACHED) tokens were committed."""
  tokens, lengths = _padded(rows)
  count = jnp.asarray(CACHED)
  first = frontier.causal(tokens, length=lengths)
  path = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
  cache = model.allocate(len(rows), max(LENGTHS)).commit(
    _forward(model, params, tokens, lengths).kv, first.position, path, count
  )
  rest, rest_lengths = _padded([row[n:] for row, n in zip(rows, CACHED, strict=True)])
  out = np.asarray(_forward_cached(model, params, rest, rest_lengths, cache).logits)
  return [x[:n] for x, n in zip(out, np.asarray(rest_lengths), strict=True)]


def difference(expected: Sequence[np.ndarray], actual: Sequence[np.ndarray]) -> float:
  """Returns the largest of all absolute differences; NaN if any is NaN."""
  parts = [np.abs(a - b).max() for a, b in zip(expected, actual, strict=True)]
  return float(np.max(parts))


@functools.partial(jax.jit, static_argnames="model")
def _forward(model, params, tokens, lengths):
  with jax.default_matmul_precision("highest"):
    return model.forward(params, frontier.causal(tokens, length=lengths))


@functools.partial(jax.jit, static_argnames="model")
def _forward_cached(model, params, tokens, lengths, cache):
  rest = frontier.causal(tokens, start=cache.length, length=lengths)
  with jax.default_matmul_precision("highest"):
    return model.forward(params, rest, cache)


def _padded(rows):
  lengths = [len(row) for row in rows]
  tokens = np.zeros((len(rows), max(lengths)), np.int32)
  for row, ids in enumerate(rows):
    tokens[row, : len(ids)] = ids
  return jnp.asarray(tokens), jnp.asarray(lengths, jnp.int32)


def _packages():
  try:
    import torch
    import transformers
    from transformers.utils import logging as hf_logging
  except ImportError as error:
    raise ImportError(f"{error.name} is not installed: `pip install mtjax[parity]`") from None
  hf_logging.set_verbosity_error()
  hf_logging.disable_progress_bar()
  torch.set_num_threads(1)  # with models this small, threads only wait for each other
  return torch, transformers
