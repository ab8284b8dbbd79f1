"""The models, trees and meshes whose rounds are compiled."""

import dataclasses
from collections.abc import Sequence

from mtjax.models import Model, TransformerConfig, uniform_layers


@dataclasses.dataclass(frozen=True)
class PodMesh:
  """The devices that a round is compiled for: a mesh with the axes data and model."""

  name: str
  topology: str | None  # as libtpu names it; None: CPU devices stand for the devices
  memory: int  # bytes of one device
  data: int = 1
  model: int = 8

  @property
  def devices(self) -> int:
    """The number of devices."""
    return self.data * self.model


def _meshes(name: str, topology: str | None, gibibytes: int) -> tuple[PodMesh, PodMesh]:
  memory = gibibytes << 30
  return (
    PodMesh(name, topology, memory, data=1, model=8),
    PodMesh(name, topology, memory, data=2, model=4),
  )


# A v5p-16 has 16 cores, two of which are one chip and one device of JAX.
MESHES = (
  *_meshes("v5e-8", "v5e:2x4", 16),
  *_meshes("v5p-16", "v5p:2x2x2", 95),
  *_meshes("v6e-8", "v6e:2x4", 32),
  *_meshes("8 x H100", None, 80),
)


def _llama(dim, layers, heads, mlp_dim, vocab, head_dim=128) -> TransformerConfig:
  return TransformerConfig(
    vocab_size=vocab,
    dim=dim,
    heads=heads,
    kv_heads=8,
    head_dim=head_dim,
    mlp_dim=mlp_dim,
    layers=uniform_layers(layers),
    tied=False,
    max_position=16_384,
    dtype="bfloat16",
  )


def _draft(vocab: int) -> TransformerConfig:
  """Returns the shape of Llama 3.2 1B."""
  return _llama(2048, 16, 32, 8192, vocab, head_dim=64)


# (target, draft model). The shapes of Mistral 7B, which is Llama 2 7B with 8 key heads, and of
# Llama 3 70B.
MODELS: dict[str, tuple[TransformerConfig, TransformerConfig]] = {
  "7B": (_llama(4096, 32, 32, 14_336, 32_000), _draft(32_000)),
  "70B": (_llama(8192, 80, 64, 28_672, 128_256), _draft(128_256)),
}
TREES = {16: (3, 2, 1), 64: (3, 4, 4)}  # children at each depth, by the number of entries


@dataclasses.dataclass(frozen=True)
class RoundCase:
  """A round of `model` with a tree of `entries`, for `batch` rows of `context` slots."""

  model: str
  entries: int
  batch: int
  context: int

  def __str__(self) -> str:
    return f"{self.model}, {self.entries} entries, batch {self.batch}, {self.context:,} slots"

  def networks(self, layers: int | None = None) -> tuple[Model, Model]:
    """Returns target and draft model; `layers`: how many layers of each, None: all."""
    target, draft = (Model(_first_layers(config, layers)) for config in MODELS[self.model])
    return target, draft

  @property
  def depths(self) -> tuple[int, int]:
    """The numbers of layers of target and draft model."""
    target, draft = MODELS[self.model]
    return len(target.layers), len(draft.layers)

  @property
  def topology(self) -> Sequence[int]:
    """The tree: its number of children at each depth."""
    return TREES[self.entries]

  @property
  def key_bytes(self) -> int:
    """Bytes of the keys of one layer of the target, in bfloat16, on all devices."""
    target, _ = MODELS[self.model]
    return 2 * self.batch * self.context * target.kv_heads * target.head_dim

  @property
  def vocab(self) -> int:
    """The number of tokens."""
    return MODELS[self.model][0].vocab_size


def _first_layers(config: TransformerConfig, layers: int | None) -> TransformerConfig:
  return dataclasses.replace(config, layers=config.layers[:layers])


# Slots of a cache. An exchange is judged by its dimensions, and 8,192 is the width of the larger
# model, so its caches are longer.
SLOTS = {"7B": 8192, "70B": 8448}

# The rounds whose memory is computed.
CASES = tuple(
  RoundCase(model, entries, batch, context)
  for model, slots in SLOTS.items()
  for entries, batch, context in ((16, 8, slots), (64, 8, slots), (16, 64, 4096))
)

# The rounds that are compiled.
_SMALL, _LARGE = (RoundCase(model, 16, 8, slots) for model, slots in SLOTS.items())
COMPILED = tuple((pod, _SMALL) for pod in MESHES if pod.data == 1) + tuple(
  # Where its parameters fit.
  (pod, _LARGE)
  for pod in MESHES
  if pod.data == 1 and pod.name != "v5e-8"
)
