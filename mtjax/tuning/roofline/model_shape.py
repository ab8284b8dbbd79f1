"""A transformer as a roofline sees it: how many weights, keys and values a pass reads."""

import dataclasses

from mtjax.models import Config, TransformerConfig


@dataclasses.dataclass(frozen=True)
class ModelShape:
  """The sizes of a transformer that its time depends on, and the types that its arrays have."""

  width: int
  heads: int
  kv_heads: int
  head_dim: int
  mlp_width: int
  mlp_matrices: int  # 3 for gated MLPs, 2 for plain ones
  vocab: int
  windows: tuple[int | None, ...]  # of each layer; None: it sees all positions
  dtype: str = "bfloat16"  # of the factors of products
  weight_bytes: float = 2.0  # per weight, as stored
  kv_bytes: float = 2.0  # per element of keys and values, as stored

  def __post_init__(self):
    sizes = dataclasses.asdict(self)
    del sizes["windows"], sizes["dtype"]
    wrong = [name for name, value in sizes.items() if not value > 0]
    if wrong or not self.windows:
      raise ValueError(f"a model needs layers and sizes above 0, not of {wrong or 'no layer'}")
    if self.heads % self.kv_heads:
      raise ValueError(f"{self.heads} heads do not divide among {self.kv_heads} key/value heads")

  @classmethod
  def of_config(cls, config: Config, *, weight_bytes: float | None = None) -> "ModelShape":
    """Returns the shape of a model's config, in the type of its activations.

    weight_bytes: per weight; None: as activations. 1 for int8 weights. Raises ValueError for a
    network that is no transformer of causal models.
    """
    if not isinstance(config, TransformerConfig):
      raise ValueError(f"a roofline is of causal transformers, and not of a {config.kind} model")
    size = 4.0 if config.dtype == "float32" else 2.0
    return cls(
      width=config.dim,
      heads=config.heads,
      kv_heads=config.kv_heads,
      head_dim=config.head_dim,
      mlp_width=config.mlp_dim,
      mlp_matrices=3 if config.mlp == "gated" else 2,
      vocab=config.vocab_size,
      windows=tuple(layer.window for layer in config.layers),
      dtype=config.dtype,
      weight_bytes=size if weight_bytes is None else weight_bytes,
      kv_bytes=size,
    )

  @property
  def layers(self) -> int:
    """The number of layers."""
    return len(self.windows)

  @property
  def weights(self) -> int:
    """Weights that a pass reads: all matrices and the head, without the embedding table."""
    attention = self.width * self.head_dim * (2 * self.heads + 2 * self.kv_heads)
    mlp = self.mlp_matrices * self.width * self.mlp_width
    return self.layers * (attention + mlp) + self.width * self.vocab

  @property
  def kv_bytes_per_token(self) -> float:
    """Bytes of the keys and values of one token, all layers together."""
    return 2 * self.layers * self.kv_heads * self.head_dim * self.kv_bytes

  def visible(self, context: int) -> int:
    """Returns how many committed tokens a query sees, summed over layers."""
    return sum(context if window is None else min(context, window) for window in self.windows)
