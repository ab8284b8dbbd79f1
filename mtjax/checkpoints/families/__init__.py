"""The families whose config.json and tensors can be read and written, most of transformers."""

import dataclasses
from typing import Any

from mtjax.checkpoints.families.any_subset import ANY_SUBSET, EXTENDED
from mtjax.checkpoints.families.diffusion import DIFFUSION, DIFFUSION_GEMMA
from mtjax.checkpoints.families.family import Family, Raw
from mtjax.checkpoints.families.fields import CONFIG, Fields
from mtjax.checkpoints.families.gemma import GEMMA2, GEMMA3
from mtjax.checkpoints.families.gpt2 import GPT2
from mtjax.checkpoints.families.llama import LLAMA
from mtjax.checkpoints.families.mistral import MISTRAL
from mtjax.checkpoints.families.olmo2 import OLMO2
from mtjax.checkpoints.families.qwen import QWEN2, QWEN3
from mtjax.checkpoints.families.smollm3 import SMOLLM3
from mtjax.checkpoints.families.xlnet import XLNET
from mtjax.models import Config, DiffusionGemmaConfig, Rope, TransformerConfig, XLNetConfig

# In the order in which an export tries them: the first one that can express a config is used.
FAMILIES = {
  family.model_type: family
  for family in (
    LLAMA,
    MISTRAL,
    QWEN2,
    QWEN3,
    SMOLLM3,
    OLMO2,
    GEMMA2,
    GEMMA3,
    GPT2,
    *DIFFUSION,
    ANY_SUBSET,
    EXTENDED,
    XLNET,
    DIFFUSION_GEMMA,
  )
}
# The name of a family in the files of another code -> the one that has a row above.
_ALIASES = {"esolm": "EsoLM"}


def read_config(raw: Raw, place: str = "config.json") -> tuple[Family, Config]:
  """Returns the family and config of a config.json, or of what `place` is in the words of errors.

  Raises ValueError for an unknown model_type (with the known ones), for quantised weights, for a
  field of a wrong kind or out of bounds, and for settings that the network cannot compute.
  """
  fields = Fields(raw, CONFIG, place)
  kind = fields.get("model_type")
  if kind == "gemma3" and "text_config" in fields:
    # The text half of a model of images and text.
    raw, kind = fields["text_config"], "gemma3_text"
  if _ALIASES.get(kind, kind) not in FAMILIES:
    raise ValueError(
      f"model_type {kind!r} of {place} is not supported; known: {', '.join(FAMILIES)}"
    )
  if fields.get("quantization_config") or raw.get("quantization_config"):
    raise ValueError("the weights are quantised (quantization_config); save them as floats first")
  family = FAMILIES[_ALIASES.get(kind, kind)]
  fields = Fields({**family.defaults, **raw}, CONFIG, place)
  config = family.read(fields)
  # Models that were trained to be left early have exits; transformers keeps and ignores the field.
  exits = tuple(fields.get("exits") or ())
  if exits and not isinstance(config, TransformerConfig):
    raise ValueError(f"config.json has exits, but a model of type {kind} cannot have any")
  if family.of_file is not None:
    family = family.of_file(family, fields)
  return family, dataclasses.replace(config, exits=exits) if exits else config


def express(config: Config) -> tuple[Family, dict[str, Any]]:
  """Returns the first family that can express a whole config, and its fields of config.json.

  Raises ValueError that says in what the closest family differs.
  """
  reasons, unreadable = [], []
  for family in FAMILIES.values():
    if not isinstance(config, family.config):
      continue
    raw = family.write(config)
    try:
      read_back = family.read(Fields({**family.defaults, **raw}, CONFIG, "config.json"))
    except ValueError as error:
      unreadable.append(f"{family.model_type}: {error}")
      continue
    lost = differences(config, read_back)
    refusal = family.refusal(config)
    lost += [] if refusal is None else [refusal]
    if not lost:
      return family, {**raw, **({"exits": list(config.exits)} if config.exits else {})}
    reasons.append((len(lost), family.model_type, lost))
  if not reasons:
    raise ValueError(f"no family of transformers can express this model: {'; '.join(unreadable)}")
  _, name, lost = min(reasons, key=lambda reason: reason[0])
  raise ValueError(
    f"no family of transformers can express this model; the closest, {name}, cannot: "
    f"{'; '.join(lost)}. Known: {', '.join(FAMILIES)}"
  )


def differences(config: Config, other: Config) -> list[str]:
  """Returns where two configs differ, as far as it changes logits: "dim is 8, there 16"."""
  config, other = _essence(config), _essence(other)
  pairs = {
    field.name: (getattr(config, field.name), getattr(other, field.name))
    for field in dataclasses.fields(config)
  }
  return [f"{name} is {a!r}, there {b!r}" for name, (a, b) in pairs.items() if a != b]


def _essence(config: Config) -> Config:
  """Returns the config with one value for fields that change no logits or have synonyms."""
  if isinstance(config, XLNetConfig):
    return dataclasses.replace(config, dtype="float32", remat="none", max_position=1)
  if isinstance(config, DiffusionGemmaConfig):
    return dataclasses.replace(config, dtype="float32")
  scale = config.head_dim**-0.5 if config.attention_scale is None else config.attention_scale
  layers = tuple(dataclasses.replace(x, rope=_used(x.rope)) for x in config.layers)
  free: dict[str, Any] = dict(
    dtype="float32", remat="none", attention="best", exits=(), layer_loop="unrolled"
  )
  return dataclasses.replace(config, **free, attention_scale=scale, layers=layers)


def _used(rope: Rope | None) -> Rope | None:
  """Returns the rope with defaults in the fields that its kind does not use."""
  if rope is None:
    return rope
  unread = {f.name for f in dataclasses.fields(Rope)} - {"kind", *_READ[rope.kind]}
  return dataclasses.replace(rope, **{name: getattr(Rope(), name) for name in unread})


_READ = {
  "default": ("theta",),
  "linear": ("theta", "factor"),
  "llama3": ("theta", "factor", "low_freq_factor", "high_freq_factor", "original_max_position"),
  "yarn": (
    "theta",
    "factor",
    "original_max_position",
    "beta_fast",
    "beta_slow",
    "attention_factor",
    "truncate",
  ),
}
