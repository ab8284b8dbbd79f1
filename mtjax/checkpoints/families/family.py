"""A family of transformers as a record, and the config fields that all families share."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mtjax.checkpoints.families.fields import Fields
from mtjax.checkpoints.layout import Recipe
from mtjax.models import Layer, Rope, TransformerConfig

Raw = Mapping[str, Any]

# Their name of an activation -> ours; and our name -> the one that we write.
_ACTIVATIONS = {
  "silu": "silu",
  "swish": "silu",
  "gelu": "gelu",
  "gelu_new": "gelu_tanh",
  "gelu_pytorch_tanh": "gelu_tanh",
  "relu": "relu",
}
ACTIVATION_NAMES = dict(silu="silu", gelu="gelu", gelu_tanh="gelu_pytorch_tanh", relu="relu")

FULL, SLIDING = "full_attention", "sliding_attention"


@dataclasses.dataclass(frozen=True)
class Folding:
  """Stored parameters that are not those of the network: functions of (config, {path: array}).

  `fold` returns the network's parameters. `unfold` returns stored ones with `fold(unfold(x)) = x`.
  """

  fold: Callable[[Any, Mapping[str, Any]], dict[str, Any]]
  unfold: Callable[[Any, Mapping[str, Any]], dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Family:
  """One model_type: its config.json and the names of its tensors.

  `read` raises ValueError for settings that the network cannot compute. `write` never raises and
  may lose settings that the family cannot express: `mtjax.checkpoints.families.express` reads the
  result again and compares. `refusal` returns a reason if transformers would not load the result.
  """

  model_type: str
  architecture: str
  defaults: Raw  # transformers' values of fields that a file may omit
  read: Callable[[Fields], Any]
  write: Callable[[Any], dict[str, Any]]
  recipes: Callable[[Any], dict[str, Recipe]]
  # Possible prefixes of the stored names; we write the first.
  prefixes: tuple[str, ...] = ("model.", "", "language_model.model.", "model.language_model.")
  # Possible names of the head; we write the first.
  heads: tuple[str, ...] = ("lm_head.weight", "language_model.lm_head.weight")
  refusal: Callable[[Any], str | None] = lambda config: None
  config: type = TransformerConfig  # the type that `read` returns and the other three take
  ignored: tuple[str, ...] = ()  # stored tensors that are no parameters
  # The layout of one file, where files of one type differ in more than the config says.
  of_file: Callable[["Family", Fields], "Family"] | None = None
  folding: Folding | None = None  # None: `recipes` are of the network's own parameters


def activation(name: str) -> Any:
  """Returns our name of their activation. Raises ValueError for one that the network lacks."""
  if name not in _ACTIVATIONS:
    raise ValueError(f"activation {name!r} is not one of: {', '.join(_ACTIVATIONS)}")
  return _ACTIVATIONS[name]


def read_common(raw: Fields) -> dict[str, Any]:
  """Reads sizes, eps, activation and tied head, which are the same in all families but GPT-2."""
  heads = raw["num_attention_heads"]
  return dict(
    vocab_size=raw["vocab_size"],
    dim=raw["hidden_size"],
    heads=heads,
    kv_heads=raw.get("num_key_value_heads") or heads,
    head_dim=raw.get("head_dim") or raw["hidden_size"] // heads,
    mlp_dim=raw["intermediate_size"],
    norm_eps=float(raw["rms_norm_eps"]),
    activation=activation(raw.get("hidden_activation") or raw.get("hidden_act") or "silu"),
    max_position=raw["max_position_embeddings"],
    tied=raw["tie_word_embeddings"],
  )


def write_common(config: TransformerConfig) -> dict[str, Any]:
  return dict(
    vocab_size=config.vocab_size,
    hidden_size=config.dim,
    intermediate_size=config.mlp_dim,
    num_hidden_layers=len(config.layers),
    num_attention_heads=config.heads,
    num_key_value_heads=config.kv_heads,
    head_dim=config.head_dim,
    rms_norm_eps=config.norm_eps,
    hidden_act=ACTIVATION_NAMES[config.activation],
    max_position_embeddings=config.max_position,
    tie_word_embeddings=config.tied,
  )


def layer_types(raw: Fields, window: int | None, default: Callable[[int], str]) -> list[str]:
  """Returns the kind of attention per layer; `default` gives it for a file without layer_types.

  Raises ValueError for unknown kinds, for a number of kinds that is not that of the layers, and for
  sliding attention without a window.
  """
  count = raw["num_hidden_layers"]
  types = raw.get("layer_types") or [default(index) for index in range(count)]
  unknown = sorted(set(types) - {FULL, SLIDING})
  if unknown:
    raise ValueError(f"layer_types must be among {FULL}, {SLIDING}, got {unknown}")
  if len(types) != count:
    raise ValueError(f"there are {len(types)} layer_types for {count} layers")
  if SLIDING in types and window is None:
    raise ValueError(f"layer_types has {SLIDING}, but there is no sliding_window")
  return types


def make_layers(
  types: Sequence[str], window: int | None, ropes: Mapping[str, Rope | None]
) -> tuple[Layer, ...]:
  """Returns layers of these kinds; full attention has no window."""
  return tuple(Layer(window if kind == SLIDING else None, ropes[kind]) for kind in types)


def written_types(config: TransformerConfig) -> list[str]:
  return [FULL if layer.window is None else SLIDING for layer in config.layers]


def only_window(config: TransformerConfig) -> int | None:
  """Returns the window of the first layer that has one, or None."""
  return next((layer.window for layer in config.layers if layer.window is not None), None)


def heads_must_divide(config: TransformerConfig) -> str | None:
  """Refuses heads that do not divide dim, for families whose config class checks it."""
  if config.dim % config.heads == 0:
    return None
  return f"transformers requires that heads ({config.heads}) divide dim ({config.dim})"
