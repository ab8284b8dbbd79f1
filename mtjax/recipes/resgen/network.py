"""The network of ResGen: per position from the sum of the known depths to a mixture of the rest.

A row is the class, as a token, and L vectors: the known depths' sum of embeddings, projected, plus
learned vectors for the number of masked depths and for the class. All entries see each other. There
is one mixture per position, whatever the depth is.
"""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from mtjax import frontier as frontier_lib
from mtjax.models import Model, Params, TransformerConfig, uniform_layers
from mtjax.recipes.resgen.mixture import Mixture


@dataclasses.dataclass(frozen=True)
class ResGenConfig:
  """Sizes of the codes and of the network."""

  classes: int
  length: int  # positions, L
  depth: int  # codes per position, D
  codes: int  # codes per depth, V
  width: int  # numbers per vector, C
  components: int  # Gaussians per position, K
  dim: int = 128
  layers: int = 4
  heads: int = 4
  mlp_dim: int = 256
  min_scale: float = 0.1  # targets are points: without it the density has no maximum

  def __post_init__(self):
    for field in dataclasses.fields(self):
      if not getattr(self, field.name) > 0:
        raise ValueError(f"{field.name} must be above 0, got {getattr(self, field.name)}")
    if self.dim % (2 * self.heads):
      raise ValueError(f"dim must be a multiple of 2 * heads = {2 * self.heads}, got {self.dim}")

  @property
  def tokens(self) -> int:
    """The number of codes per row, L * D."""
    return self.length * self.depth

  def transformer(
    self, *, vocab_size: int, positions: int, predicts: Literal["masked", "next_token"]
  ) -> Model:
    """Returns the transformer of these sizes for another vocabulary and length."""
    return Model(
      TransformerConfig(
        vocab_size=vocab_size,
        dim=self.dim,
        heads=self.heads,
        kv_heads=self.heads,
        head_dim=self.dim // self.heads,
        mlp_dim=self.mlp_dim,
        layers=uniform_layers(self.layers),
        learned_positions=positions,
        max_position=positions,
        predicts=predicts,
      )
    )

  def trunk(self) -> Model:
    """Returns the transformer between the vectors and the head."""
    return self.transformer(vocab_size=self.classes, positions=self.length + 1, predicts="masked")


def init_params(
  config: ResGenConfig, key: Key[Array, ""], start: Float[Array, "K C"] | None = None
) -> Params:
  """Returns new parameters; the means of the mixture begin near `start` (None: near 0)."""
  trunk, inside, depth, label, head = jax.random.split(key, 5)
  width, dim, k = config.width, config.dim, config.components
  outputs = k * (width + 2)
  bias = jnp.zeros((outputs,))
  if start is not None:
    bias = bias.at[2 * k :].set(start.reshape(-1))
  return {
    "trunk": config.trunk().init(trunk),
    "input": {
      "kernel": jax.random.normal(inside, (width, dim)) * width**-0.5,
      "masked": jax.random.normal(depth, (config.depth + 1, dim)) * 0.5,
      "label": jax.random.normal(label, (config.classes, dim)) * 0.5,
    },
    "head": {
      "kernel": jax.random.normal(head, (dim, outputs)) * 0.3 * dim**-0.5,
      "bias": bias,
    },
  }


def predict(
  config: ResGenConfig,
  params: Params,
  known: Float[Array, "B L C"],
  counts: Int[Array, "B L"],
  label: Int[Array, " B"],
) -> Mixture:
  """Returns the mixture of the masked depths' sum of embeddings at each position.

  `known` is the sum of the embeddings of the other depths and `counts` the number of masked ones.
  """
  inside, head = params["input"], params["head"]
  vector = known @ inside["kernel"] + inside["masked"][counts]
  vector += inside["label"][label][:, None]
  token = jnp.concatenate([label[:, None], jnp.zeros_like(counts)], axis=1)
  soft = jnp.broadcast_to(jnp.arange(token.shape[1]) > 0, token.shape)
  frontier = frontier_lib.with_vectors(
    frontier_lib.bidirectional(token), jnp.pad(vector, ((0, 0), (1, 0), (0, 0))), soft
  )
  no_logits = jnp.zeros((token.shape[0], 0), jnp.int32)
  out = config.trunk().forward(params["trunk"], frontier, None, no_logits)
  y = out.features[:, 1:] @ head["kernel"] + head["bias"]
  logits, scale, mean = jnp.split(y, [config.components, 2 * config.components], axis=-1)
  mean = mean.reshape(*mean.shape[:-1], config.components, config.width)
  # A smooth floor: the derivative does not vanish at it.
  log_scale = jnp.log(config.min_scale + jax.nn.softplus(scale))
  return Mixture(logits, mean, log_scale)


def training_flops(model: Model, entries: int, head: int) -> float:
  """Returns the operations of forward and backward for one row: 3 * (2 * weights * T + attention).

  Weights are those of the matrices that every entry meets, with a head of `head` outputs.
  """
  c = model.config
  layer = 4 * c.dim * c.dim + 3 * c.dim * c.mlp_dim
  weights = len(c.layers) * layer + c.dim * head
  attention = 4.0 * entries * entries * c.dim * len(c.layers)
  return 3 * (2.0 * weights * entries + attention)
