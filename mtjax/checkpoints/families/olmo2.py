"""OLMo 2: norms after the branches and over whole query and key projections."""

from typing import Any

from mtjax.checkpoints.families.decoder_tensors import decoder_recipes
from mtjax.checkpoints.families.family import Family, read_common, write_common
from mtjax.checkpoints.families.fields import Fields
from mtjax.checkpoints.families.rope import only_rope, read_rope, write_rope
from mtjax.models import TransformerConfig, uniform_layers


def read(raw: Fields) -> TransformerConfig:
  return TransformerConfig(
    **read_common(raw),
    layers=uniform_layers(raw["num_hidden_layers"], rope=read_rope(raw)),
    norm_placement="post",
    qk_norm="full",
    qkv_bias=raw["attention_bias"],
    out_bias=raw["attention_bias"],
  )


def write(config: TransformerConfig) -> dict[str, Any]:
  return dict(
    **write_common(config),
    **write_rope(only_rope(config)),
    attention_bias=config.qkv_bias,
  )


OLMO2 = Family(
  model_type="olmo2",
  architecture="Olmo2ForCausalLM",
  defaults=dict(
    rms_norm_eps=1e-5,
    max_position_embeddings=2048,
    attention_bias=False,
    tie_word_embeddings=False,
  ),
  read=read,
  write=write,
  recipes=decoder_recipes,
)
