"""The network as a pure function, which is all that decoders, verifiers and losses see of it."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from mtjax import cache as cache_lib
from mtjax import frontier as frontier_lib
from mtjax.cache import KVCache
from mtjax.models.config import TransformerConfig
from mtjax.models.diffusion_gemma import DiffusionGemma, DiffusionGemmaConfig, DiffusionGemmaHead
from mtjax.models.linear import Head
from mtjax.models.stacking import Stacks, stack_params, unrolled
from mtjax.models.transformer import Transformer
from mtjax.models.xlnet import XLNet, XLNetConfig, XLNetHead
from mtjax.types import Frontier, Output

Params = PyTree
Config = TransformerConfig | XLNetConfig | DiffusionGemmaConfig

# Config -> its network, and the network's last step alone.
_NETWORKS = {
  TransformerConfig: (Transformer, Head),
  XLNetConfig: (XLNet, XLNetHead),
  DiffusionGemmaConfig: (DiffusionGemma, DiffusionGemmaHead),
}


@dataclasses.dataclass(frozen=True)
class Model:
  """A transformer without its parameters: hashable, holds no arrays, safe as a static argument."""

  config: Config

  def __repr__(self) -> str:
    return f"Model({describe_network(self.config)})"

  def init(self, key: PRNGKeyArray) -> Params:
    """Returns new float32 parameters, a plain nested dict."""
    params = _new_params(Model(unrolled(self.config)), key)
    return stack_params(params, Stacks.of(self.config))

  def shapes(self) -> Params:
    """Returns the parameter dict with jax.ShapeDtypeStruct leaves, without computing it.

    All layers of most networks have the same shapes: one is traced, whatever the depth.
    """
    if isinstance(self.config, DiffusionGemmaConfig):
      return jax.eval_shape(self.init, jax.random.key(0))
    plain = Model(unrolled(self.config))
    params = jax.eval_shape(plain.prefix(1).init, jax.random.key(0))
    layer = params.pop("layer_0")
    params |= {f"layer_{index}": layer for index in range(len(plain.config.layers))}
    return jax.eval_shape(lambda x: stack_params(x, Stacks.of(self.config)), params)

  def forward(
    self,
    params: Params,
    frontier: Frontier,
    cache: KVCache | None = None,
    rows: Int[Array, "B R"] | None = None,
  ) -> Output:
    """Returns logits, features and fresh keys/values of the frontier over the committed prefix.

    Every entry sees the whole of `cache` and the entries of the frontier that its stamp allows.
    Logits are float32 and computed for the entries `rows` only (None: all T; R = 0: none, for
    prefill). Features are of the same entries, and of all T where there are no logits: `read` gives
    the logits of those that are chosen later. A plain transformer computes no MLP in its last layer
    for entries without features; with layers in a scan, this is so for masked models of few layers.
    Nothing is written to the cache: commit the accepted entries. An entry may be a vector in place
    of a token (`Frontier.vector`), and it has a gradient.
    """
    return self.segment(params, frontier, cache, rows, first=0, last=len(self.config.layers))[0]

  def segment(
    self,
    params: Params,
    frontier: Frontier,
    cache: KVCache | None = None,
    rows: Int[Array, "B R"] | None = None,
    *,
    first: int,
    last: int,
    hidden: Float[Array, "B T D"] | None = None,
  ) -> tuple[Output, Float[Array, "B F D"]]:
    """Runs `forward` through layers first, ..., last - 1 only; also returns their hidden states.

    Hidden states are of all entries, but after the model's last layer of those with features only.
    `hidden` is the output of layer first - 1; it is None for first = 0, where tokens and vectors
    are read. The output is that of the model cut off after `last` layers, through the one final
    norm and head: one pass gives every exit if each segment continues from the hidden states of the
    one before. `cache` holds these layers only.

    Raises ValueError for layers that do not exist, for `hidden` missing or not needed, and for
    vectors that are not as wide as the model's embeddings or do not fit the frontier's entries.
    """
    if not 0 <= first < last <= len(self.config.layers):
      raise ValueError(
        f"layers {first} to {last} are not some of the {len(self.config.layers)} of this model"
      )
    if (hidden is None) != (first == 0):
      raise ValueError("hidden must be given if, and only if, first is above 0")
    if frontier.position.shape != frontier.token.shape:
      raise ValueError(
        f"position {frontier.position.shape} and token {frontier.token.shape} must have one shape"
      )
    frontier_lib.check_vectors(frontier, self.config.dim)
    if (frontier.target is None) != (self.config.target_conditioning == "none"):
      raise ValueError(
        "a single-stream model (target_conditioning) needs Frontier.target, the position that each "
        "entry predicts, and no other model takes it; see mtjax.anysubset.single_stream"
      )
    if cache is not None and cache.length.shape[0] != frontier.batch:
      raise ValueError(
        f"the cache has {cache.length.shape[0]} rows, but the frontier has {frontier.batch}"
      )
    stacks = Stacks.of(self.config)
    if stacks.count and (first, last) != (0, len(self.config.layers)):
      raise ValueError(
        "layers in one scan cannot be left early: use the model with layer_loop 'unrolled'"
      )
    buffers = last - first - stacks.layers + (stacks.kinds if stacks.count else 0)
    if cache is not None and len(cache.layers) != buffers:
      raise ValueError(
        f"the cache has {len(cache.layers)} layers or stacks, but the pass runs {buffers} of them"
      )
    network = self._network(self.config, first, last)
    return network.apply({"params": params}, frontier, cache, rows, hidden)

  def read(self, params: Params, features: Float[Array, "B R D"]) -> Float[Array, "B R V"]:
    """Returns the logits of `Output.features`, for entries that are chosen after the pass."""
    head = _NETWORKS[type(self.config)][1]
    return head(self.config).apply({"params": params}, features)

  def prefix(self, layers: int) -> "Model":
    """Returns the model of the first `layers` layers, with the same norm and head.

    It reads the parameters of this one (`prefix_params` leaves out those it does not need).
    """
    if Stacks.of(self.config).count:
      raise ValueError("a prefix of stacked layers does not exist: use layer_loop 'unrolled'")
    if isinstance(self.config, XLNetConfig):
      return Model(dataclasses.replace(self.config, depth=min(layers, self.config.depth)))
    if isinstance(self.config, DiffusionGemmaConfig):
      return Model(dataclasses.replace(self.config, layers=self.config.layers[:layers]))
    return Model(dataclasses.replace(self.config, layers=self.config.layers[:layers], exits=()))

  def allocate(self, batch: int, capacity: int, dtype: DTypeLike | None = None) -> KVCache:
    """Returns an empty cache for this model.

    Raises ValueError for a capacity above its learned positions.
    """
    c = self.config
    if c.learned_positions is not None and capacity > c.learned_positions:
      raise ValueError(
        f"capacity {capacity} exceeds the model's {c.learned_positions} learned positions"
      )
    return cache_lib.allocate(
      batch=batch,
      capacity=capacity,
      heads=self._heads_of_buffers(),
      head_dim=self._sizes_of_buffers(),
      dtype=jnp.dtype(c.dtype) if dtype is None else dtype,
    )

  def _sizes_of_buffers(self) -> int | list[int]:
    if isinstance(self.config, DiffusionGemmaConfig):
      return [layer.head_dim for layer in self.config.layers]
    return self.config.head_dim

  def _heads_of_buffers(self) -> list[int]:
    if isinstance(self.config, DiffusionGemmaConfig):
      return [layer.kv_heads for layer in self.config.layers]
    stacks, heads = Stacks.of(self.config), self.config.kv_heads
    stacked = [stacks.count * heads] * stacks.kinds if stacks.count else []
    return stacked + [heads] * (len(self.config.layers) - stacks.layers)

  @property
  def _network(self):
    return _NETWORKS[type(self.config)][0]


# One function for all models, so that equal ones are traced once.
@functools.partial(jax.jit, static_argnums=0)
def _new_params(model: Model, key: PRNGKeyArray) -> Params:
  frontier = frontier_lib.causal(jnp.zeros((1, 1), jnp.int32))
  if model.config.target_conditioning != "none":
    frontier = frontier.replace(target=frontier.position)
  return model._network(model.config).init(key, frontier, None, None)["params"]


def describe_network(config: Config) -> str:
  """Returns the sizes of a network: "6 layers x 320, 10 heads of 32 (2 key/value), ..."."""
  kv = f" ({config.kv_heads} key/value)" if config.kv_heads != config.heads else ""
  words = [
    f"{len(config.layers)} layers x {config.dim}",
    f"{config.heads} heads of {config.head_dim}{kv}",
    f"vocabulary {config.vocab_size:,}",
    f"{config.max_position:,} positions",
  ]
  if config.kind != "transformer":
    words.insert(0, config.kind)
  if config.predicts != "next_token":
    words.append(f"predicts {config.predicts}")
  if config.alignment != "aligned":
    words.append(config.alignment)
  if config.block_length:
    words.append(f"blocks of {config.block_length}")
  return ", ".join(words)


def check_causal(model: Model, name: str) -> None:
  """Raises ValueError for a model that predicts anything but the next token.

  The logits of such a model at an entry are not the distribution of the token after it. `predicts`
  of the config says what they are; extra embeddings make no difference.
  """
  if model.config.predicts != "next_token":
    kinds = {"masked": "a masked", "any_subset": "an any-subset", "canvas": "a uniform diffusion"}
    kind = kinds[model.config.predicts]
    raise ValueError(f"{name} is {kind} model, but a causal one is needed")


def prefix_params(params: Params, layers: int) -> Params:
  """Returns the parameters that `Model.prefix` reads: without the layers from `layers` on."""
  numbers = {name: int(name.removeprefix("layer_")) for name in params if name.startswith("layer_")}
  return {name: value for name, value in params.items() if numbers.get(name, -1) < layers}


def count_parameters(params: Params) -> int:
  """Returns the number of scalars."""
  return sum(leaf.size for leaf in jax.tree.leaves(params))
