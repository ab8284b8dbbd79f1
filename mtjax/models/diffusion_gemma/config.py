"""The settings of a DiffusionGemma."""

import dataclasses
from typing import ClassVar, Literal

from mtjax.display.short import settings_repr
from mtjax.models.config import check_choices, check_sizes, special_id


@dataclasses.dataclass(frozen=True)
class CanvasLayer:
  """The settings that differ from layer to layer.

  `rotary_share`: the share of a head's pairs of dimensions that rotate, the fastest ones; the
  others keep their values at every position. `values`: own ones, or those of the keys before they
  are normed and rotated.
  """

  kv_heads: int
  head_dim: int
  window: int | None = None
  theta: float = 10_000.0
  rotary_share: float = 1.0
  values: Literal["own", "keys"] = "own"

  __repr__ = settings_repr

  def __post_init__(self):
    check_choices(self)
    check_sizes(self, ("kv_heads", "head_dim"))
    if self.head_dim % 2:
      raise ValueError(f"rotary positions need an even head_dim, got {self.head_dim}")
    if self.window is not None:
      check_sizes(self, ("window",))
    if not self.theta > 1:
      raise ValueError(f"theta must be more than 1, got {self.theta}")
    if not 0 < self.rotary_share <= 1:
      raise ValueError(f"rotary_share must be above 0 and at most 1, got {self.rotary_share}")


def canvas_layers(
  count: int,
  *,
  kv_heads: int,
  head_dim: int,
  window: int = 512,
  full_every: int = 6,
  theta: float = 10_000.0,
  full_theta: float = 1_000_000.0,
  full_rotary_share: float = 0.25,
) -> tuple[CanvasLayer, ...]:
  """Returns `count` layers as the published model has them: most have a window.

  Every layer of the number `full_every`, and the last one, sees all of the text: its values are
  those of the keys, and its rotary positions have a base and a share of their own.
  """
  if full_every < 1:
    raise ValueError(f"full_every must be at least 1, got {full_every}")
  near = CanvasLayer(kv_heads, head_dim, window, theta)
  full = CanvasLayer(kv_heads, head_dim, None, full_theta, full_rotary_share, values="keys")
  is_full = [(index + 1) % full_every == 0 or index + 1 == count for index in range(count)]
  return tuple(full if each else near for each in is_full)


@dataclasses.dataclass(frozen=True)
class DiffusionGemmaConfig:
  """A DiffusionGemma (Gemma 4 with canvases): norms around branches, experts beside every MLP.

  It has no mask. Clean text is read causally and committed; a canvas of `canvas_length` tokens
  after it, which begin as uniform ones, sees all of itself and what is committed, and predicts the
  token of every entry (`predicts` "canvas").
  """

  vocab_size: int
  dim: int
  heads: int
  mlp_dim: int
  experts: int
  top_experts: int
  expert_dim: int
  layers: tuple[CanvasLayer, ...]
  canvas_length: int = 256
  norm_eps: float = 1e-6
  activation: Literal["silu", "gelu", "gelu_tanh", "relu"] = "gelu_tanh"
  logit_soft_cap: float | None = 30.0
  max_position: int = 131072
  tied: bool = True
  dtype: Literal["float32", "bfloat16", "float16"] = "float32"  # type of activations

  kind: ClassVar[str] = "diffusion_gemma"

  # Settings that are fixed here and vary in other networks.
  head_bias: ClassVar[bool] = False
  norm: ClassVar[str] = "rms"
  mlp: ClassVar[str] = "gated"
  mlp_bias: ClassVar[bool] = False
  extra_embeddings: ClassVar[int] = 0
  extra_names: ClassVar[tuple[str, ...]] = ()
  predicts: ClassVar[str] = "canvas"
  noise: ClassVar[str] = "uniform"
  mask_id: ClassVar[None] = None
  alignment: ClassVar[str] = "aligned"
  block_length: ClassVar[int] = 0
  learned_positions: ClassVar[None] = None
  target_conditioning: ClassVar[str] = "none"
  exits: ClassVar[tuple] = ()

  __repr__ = settings_repr

  def __post_init__(self):
    check_choices(self)
    check_sizes(
      self,
      (
        "vocab_size",
        "dim",
        "heads",
        "mlp_dim",
        "experts",
        "top_experts",
        "expert_dim",
        "canvas_length",
        "max_position",
      ),
    )
    if not self.layers:
      raise ValueError("a DiffusionGemma needs at least one layer")
    if self.top_experts > self.experts:
      raise ValueError(f"{self.top_experts} of {self.experts} experts cannot be chosen")
    for layer in self.layers:
      if self.heads % layer.kv_heads:
        raise ValueError(f"{self.heads} heads do not divide among {layer.kv_heads} key/value heads")

  @property
  def kv_heads(self) -> int:
    """The key/value heads of the first layer; others may have other numbers."""
    return self.layers[0].kv_heads

  @property
  def head_dim(self) -> int:
    """The size of heads of the first layer; others may have other sizes."""
    return self.layers[0].head_dim

  def special_id(self, name: str) -> int:
    """Raises ValueError: there are no such entries."""
    return special_id(self, name)
