"""The settings that distinguish transformer families: one frozen config, no subclasses."""

import dataclasses
import math
import numbers
import typing
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np

from kernels_pallas.frontier_attention.dispatch import Implementation
from mtjax.display.short import settings_repr


def _check_positive(config, names: Sequence[str]) -> None:
  for name in names:
    value = getattr(config, name)
    # Written so that NaN is refused.
    if value is not None and not (isinstance(value, numbers.Real) and 0 < value < math.inf):
      raise ValueError(f"{name} must be a finite number above 0, got {value!r}")


# The extra embeddings of an any-subset model, in order, in folders and runs older than
# `extra_names`: one stands where there is no token yet, and one is the entry that all others see.
ANY_SUBSET_NAMES = ("query", "sink")


@dataclasses.dataclass(frozen=True)
class Rope:
  """Rotary position embedding (2104.09864) and its context extensions.

  `default`; `linear` (positions divided by `factor`); `llama3` (frequencies below
  low_freq_factor rescaled, smooth up to high_freq_factor); `yarn` (2309.00071, by-parts ramp
  between beta_fast and beta_slow rotations, `attention_factor` multiplies cos and sin).
  """

  theta: float = 10_000.0
  kind: Literal["default", "linear", "llama3", "yarn"] = "default"
  factor: float = 1.0
  low_freq_factor: float = 1.0
  high_freq_factor: float = 4.0
  original_max_position: int = 8192
  beta_fast: float = 32.0
  beta_slow: float = 1.0
  attention_factor: float = 1.0
  truncate: bool = True

  __repr__ = settings_repr

  def __post_init__(self):
    numeric = [f.name for f in dataclasses.fields(self) if f.name not in ("kind", "truncate")]
    _check_positive(self, numeric)
    if self.theta <= 1:
      raise ValueError(f"theta must be more than 1, got {self.theta}")
    if self.kind == "llama3" and self.high_freq_factor <= self.low_freq_factor:
      raise ValueError(
        f"high_freq_factor ({self.high_freq_factor}) must be more than low_freq_factor "
        f"({self.low_freq_factor})"
      )

  def inverse_frequencies(self, head_dim: int) -> np.ndarray:
    """Returns [head_dim / 2] float32, computed in float64 because angles are up to thousands."""
    exponent = np.arange(0, head_dim, 2) / head_dim
    plain = 1.0 / self.theta**exponent
    if self.kind == "default":
      out = plain
    elif self.kind == "linear":
      out = plain / self.factor
    elif self.kind == "llama3":
      rotations = self.original_max_position * plain / (2 * math.pi)
      smooth = (rotations - self.low_freq_factor) / (self.high_freq_factor - self.low_freq_factor)
      smooth = np.clip(smooth, 0, 1)
      out = (1 - smooth) * plain / self.factor + smooth * plain
    elif self.kind == "yarn":
      out = self._yarn(plain, head_dim)
    else:
      raise ValueError(f"rope kind {self.kind!r} is not one of default, linear, llama3, yarn")
    return out.astype(np.float32)

  def _yarn(self, plain, head_dim):
    def dimension(rotations):
      ratio = self.original_max_position / (rotations * 2 * math.pi)
      return head_dim * math.log(ratio) / (2 * math.log(self.theta))

    low, high = dimension(self.beta_fast), dimension(self.beta_slow)
    if self.truncate:
      low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, head_dim - 1)
    high = high + 0.001 if low == high else high
    ramp = np.clip((np.arange(head_dim // 2) - low) / (high - low), 0, 1)
    return plain / self.factor * ramp + plain * (1 - ramp)


@dataclasses.dataclass(frozen=True)
class Layer:
  """The settings that may differ from layer to layer: sliding window, rotary positions or none."""

  window: int | None = None
  rope: Rope | None = Rope()

  __repr__ = settings_repr


@dataclasses.dataclass(frozen=True)
class TransformerConfig:
  """A decoder-only transformer. Hashable: it is a static argument of every jitted function.

  Norm placement: `pre` (Llama), `post` (OLMo 2: the branch output is normed), `sandwich` (Gemma:
  both). `qk_norm`: none, per `head` (Qwen3, Gemma 3), or over the `full` projection (OLMo 2).
  `target_conditioning`: how an entry of a single-stream any-order model learns which position it
  predicts: a learned vector `added` to its embedding (sigma-GPT 2404.09562), or one that modulates
  the norms of every layer (`adaptive_norm`: AO-GPT 2506.19935; pre-norm models).
  `predicts`: what the logits of an entry predict. The `next_token` after it (causal models); any
  token of a text from any others (`any_subset`: at a query entry, or at the target position of a
  single-stream entry); the token at its own place, which holds a mask (`masked`: MDLM 2406.07524).
  Extra embeddings are allowed in all of them; logits cover the vocabulary only.
  `any_subset_rows`: who sees whom in an any-subset model of two streams. `two_stream` (AS-ARM
  2504.20456): context entries see each other, and a query sees no query. `set_diffusion` (SetDLM
  2607.01775): a context entry sees those before it, and a query, which is a mask, sees itself too.
  `eso` (Eso-LM (B) 2506.01928): as that, and a mask also sees the masks before it in its pass.
  Masked models have four more settings. `mask_id`: the mask, if it is a token of the vocabulary
  (LLaDA 2502.09992), and not an extra embedding with the name "mask"; `special_id("mask")` finds
  either. `alignment`: the token of an entry is predicted there (`aligned`), or at the entry before
  it (`shifted`: Dream 2508.15487). `block_length`: entries see their own block of so many positions
  and all earlier ones (BD3-LM 2503.09573); 0: all entries see each other. `noise`: what the model
  was trained to denoise: masks (`absorbing`), random tokens (`uniform`: UDLM 2412.10193), or both
  (`hybrid`: GIDD 2503.04482). It changes no logits: it says which methods of denoising fit.
  """

  vocab_size: int
  dim: int
  heads: int
  kv_heads: int
  head_dim: int
  mlp_dim: int
  layers: tuple[Layer, ...]
  norm: Literal["rms", "rms_plus_one", "layer"] = "rms"
  norm_placement: Literal["pre", "post", "sandwich"] = "pre"
  norm_eps: float = 1e-6
  activation: Literal["silu", "gelu", "gelu_tanh", "relu"] = "silu"
  mlp: Literal["gated", "plain"] = "gated"
  qkv_bias: bool = False
  out_bias: bool = False
  mlp_bias: bool = False
  qk_norm: Literal["none", "head", "full"] = "none"
  attention_scale: float | None = None  # None: head_dim ** -0.5
  attention_soft_cap: float | None = None
  logit_soft_cap: float | None = None
  embedding_scale: float | None = None
  tied: bool = True
  head_bias: bool = False  # a bias of the logits (BD3-LM); the head is then not tied
  learned_positions: int | None = None  # number of positions with a learned embedding (GPT-2)
  max_position: int = 2048
  extra_embeddings: int = 0  # learned ids vocab_size, vocab_size + 1, ...: masks, queries, prompts
  extra_names: tuple[str, ...] = ()  # names of the first of them: `special_id` finds an id by name
  dtype: Literal["float32", "bfloat16", "float16"] = "float32"  # type of activations, not of params
  remat: Literal["none", "layer"] = "none"  # recompute a layer's activations in the backward pass
  attention: Literal["best", Implementation] = "best"  # a name never falls back
  exits: tuple[int, ...] = ()  # numbers of layers after which the head was trained to read
  target_conditioning: Literal["none", "added", "adaptive_norm"] = "none"
  predicts: Literal["next_token", "any_subset", "masked"] = "next_token"
  any_subset_rows: Literal["two_stream", "set_diffusion", "eso"] = "two_stream"
  mask_id: int | None = None  # None: the extra embedding called "mask", if there is one
  alignment: Literal["aligned", "shifted"] = "aligned"
  block_length: int = 0
  noise: Literal["absorbing", "uniform", "hybrid"] = "absorbing"
  layer_loop: Literal["unrolled", "scanned"] = "unrolled"  # how it runs: `mtjax.models.stacking`

  kind: ClassVar[str] = "transformer"

  __repr__ = settings_repr

  def __post_init__(self):
    check_choices(self)
    sizes = ("vocab_size", "dim", "heads", "kv_heads", "head_dim", "mlp_dim", "max_position")
    check_sizes(self, sizes)
    _check_positive(
      self,
      ("norm_eps", "attention_scale", "attention_soft_cap", "logit_soft_cap", "embedding_scale"),
    )
    if not self.layers:
      raise ValueError("a transformer needs at least one layer")
    if self.heads % self.kv_heads:
      raise ValueError(f"{self.heads} heads do not divide among {self.kv_heads} key/value heads")
    if self.head_dim % 2 and any(layer.rope for layer in self.layers):
      raise ValueError(f"rotary positions need an even head_dim, got {self.head_dim}")
    for layer in self.layers:
      if layer.window is not None and layer.window < 1:
        raise ValueError(f"a sliding window must be at least 1, got {layer.window}")
    if self.target_conditioning == "adaptive_norm" and self.norm_placement != "pre":
      raise ValueError(f"adaptive_norm modulates norms before branches, not {self.norm_placement}")
    check_extra_names(self.extra_names, self.extra_embeddings)
    if self.target_conditioning != "none" and self.predicts != "any_subset":
      raise ValueError(
        f"target_conditioning {self.target_conditioning!r} needs a model with predicts "
        f"'any_subset', got {self.predicts!r}"
      )
    if self.any_subset_rows != "two_stream" and (
      self.predicts != "any_subset" or self.target_conditioning != "none"
    ):
      raise ValueError(
        f"any_subset_rows {self.any_subset_rows!r} needs a model with predicts 'any_subset' and "
        f"without target_conditioning, got {self.predicts!r} and {self.target_conditioning!r}"
      )
    if self.head_bias and self.tied:
      raise ValueError("head_bias is for a model with a head of its own: set tied=False")
    _check_masked(self)
    if self.layer_loop == "scanned" and self.exits:
      raise ValueError(
        "layers that run in one scan cannot be left early: exits need layer_loop 'unrolled'"
      )
    ends = (0, *self.exits)
    if self.exits and (ends != tuple(sorted(set(ends))) or ends[-1] != len(self.layers)):
      raise ValueError(
        f"exits must be numbers of layers, rising to all {len(self.layers)} of them, "
        f"got {self.exits}"
      )

  @property
  def group(self) -> int:
    """The number of query heads per key/value head."""
    return self.heads // self.kv_heads

  def special_id(self, name: str) -> int:
    """Returns the id of the entry of that name. Raises ValueError if there is none."""
    return special_id(self, name)


def special_id(config: Any, name: str) -> int:
  """Returns vocab_size + i for name number i of `extra_names`; for "mask", `mask_id` if it is set.

  Raises ValueError, with the existing names, for another name.
  """
  # An XLNet has no mask of its own.
  mask_id = getattr(config, "mask_id", None)
  if name == "mask" and mask_id is not None:
    return mask_id
  if name not in config.extra_names:
    known = ", ".join(map(repr, config.extra_names)) or "none"
    raise ValueError(f"the model has no extra embedding called {name!r}; it has {known}")
  return config.vocab_size + config.extra_names.index(name)


def _check_masked(config: TransformerConfig) -> None:
  """Raises ValueError for settings of masked models that are wrong, or in another model."""
  # An any-subset model may have a mask for its query entries (SetDLM 2607.01775).
  unused: list[tuple[str, Any]] = [
    ("alignment", "aligned"),
    ("block_length", 0),
    ("noise", "absorbing"),
  ]
  if config.predicts != "any_subset":
    unused.append(("mask_id", None))
  used = [name for name, value in unused if getattr(config, name) != value]
  if used and config.predicts != "masked":
    raise ValueError(
      f"{used[0]} is a setting of masked models, and this one predicts {config.predicts!r}: it "
      f"needs predicts 'masked', got {used[0]} {getattr(config, used[0])!r}"
    )
  length, mask = config.block_length, config.mask_id
  if isinstance(length, bool) or not isinstance(length, numbers.Integral) or length < 0:
    raise ValueError(f"block_length must be a whole number and at least 0, got {length!r}")
  if config.noise == "hybrid" and "mask" not in config.extra_names:
    raise ValueError(
      "hybrid noise needs a mask that is no token of the vocabulary: extra_names=('mask',)"
    )
  if mask is None:
    return
  if isinstance(mask, bool) or not isinstance(mask, numbers.Integral):
    raise ValueError(f"mask_id must be a whole number or None, got {mask!r}")
  if not 0 <= mask < config.vocab_size:
    raise ValueError(
      f"mask_id must be a token of the vocabulary, 0..{config.vocab_size - 1}, got {mask}"
    )
  if "mask" in config.extra_names:
    raise ValueError(f"there are two masks: mask_id {mask} and an extra embedding called 'mask'")


def check_extra_names(names: Any, count: Any) -> None:
  """Raises ValueError unless `names` are distinct words for some of `count` extra embeddings."""
  if not isinstance(count, numbers.Integral) or count < 0:
    raise ValueError(f"extra_embeddings must be a whole number and at least 0, got {count!r}")
  if not isinstance(names, tuple) or not all(isinstance(name, str) and name for name in names):
    raise ValueError(f"extra_names must be a tuple of words, got {names!r}")
  if len(set(names)) != len(names):
    raise ValueError(f"extra_names must differ from each other, got {names}")
  if len(names) > count:
    raise ValueError(
      f"extra_names has {len(names)} names, {names}, but extra_embeddings is only {count}"
    )


def check_sizes(config: Any, names: Sequence[str]) -> None:
  """Raises ValueError for a field that is no whole number, or below 1."""
  for name in names:
    size = getattr(config, name)
    if not isinstance(size, numbers.Integral) or size < 1:
      raise ValueError(f"{name} must be a whole number and at least 1, got {size!r}")


def check_choices(config: Any) -> None:
  """Raises ValueError for a field whose type is a Literal that does not list its value."""
  for name, hint in typing.get_type_hints(type(config)).items():
    if typing.get_origin(hint) is Literal and getattr(config, name) not in typing.get_args(hint):
      allowed = ", ".join(map(repr, typing.get_args(hint)))
      raise ValueError(f"{name} must be one of {allowed}, got {getattr(config, name)!r}")


def uniform_layers(count: int, **fields: Any) -> tuple[Layer, ...]:
  """Returns `count` equal layers."""
  return (Layer(**fields),) * count
