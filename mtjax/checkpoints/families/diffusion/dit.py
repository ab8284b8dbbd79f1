"""MDLM (2406.07524), BD3-LM (2503.09573), SetDLM (2607.01775), Eso-LM (2506.01928): one network.

They differ in who sees whom. config.json has two forms: one of the papers' models, which is a
little different for Eso-LM, and one of SetDLM's code, which also trains the others and keeps the
network's settings in `backbone_config`.
"""

import dataclasses
import warnings
from typing import Any

from mtjax.checkpoints.families.decoder_tensors import fused_qkv
from mtjax.checkpoints.families.diffusion.adaptive_norms import FREQUENCIES, WIDTH, fold, unfold
from mtjax.checkpoints.families.family import Family, Folding, heads_must_divide
from mtjax.checkpoints.families.fields import CONFIG, Fields
from mtjax.checkpoints.layout import Recipe, whole
from mtjax.models import TransformerConfig, uniform_layers

# The network's settings in backbone_config -> their names in the older form.
_NEW_NAMES = {
  "hidden_size": "hidden_dim",
  "num_layers": "n_blocks",
  "length": "model_length",
  "causal_attention": "causal",
  "n_heads": "n_heads",
  "vocab_size": "vocab_size",
  "cond_dim": "cond_dim",
  "adaln": "adaln",
}
# Settings of the older form -> other names of them, in the files of Eso-LM.
_ESO_NAMES = {"hidden_dim": "hidden_size", "mask_token_id": "mask_index"}
_SETS = "SetDLM"  # the architecture whose sets of tokens are decided in any order
# What SetDLM's code writes nothing for: how entries see each other in the two parts of the loss.
_ESO_MODES = dict(diffusion_attn_mode="bidirectional", sequential_attn_mode="causal")


def read(raw: Fields) -> TransformerConfig:
  raw = _older(raw)
  for name in ("time_conditioning", "causal"):
    if raw[name]:
      raise ValueError(f"a {raw['model_type']} with {name} is not supported")
  dim, heads, rows = raw["hidden_dim"], raw["n_heads"], raw["vocab_size"]
  if dim % heads:
    raise ValueError(f"n_heads ({heads}) must divide hidden_dim ({dim})")
  eso = raw["model_type"] in _ESO_TYPES
  if eso:
    _check_eso(raw)
  sets = not eso and _SETS in (raw.get("architectures") or ())
  blocks = raw["model_type"] == "bd3lm" and raw["cross_attn"] and not sets
  return TransformerConfig(
    vocab_size=rows,
    dim=dim,
    heads=heads,
    kv_heads=heads,
    head_dim=dim // heads,
    mlp_dim=4 * dim,
    layers=uniform_layers(raw["n_blocks"]),
    norm="layer",
    norm_eps=1e-5,
    activation="gelu_tanh",
    mlp="plain",
    mlp_bias=True,
    tied=False,
    head_bias=True,
    max_position=raw["model_length"],
    predicts="any_subset" if sets or eso else "masked",
    any_subset_rows="eso" if eso else "set_diffusion" if sets else "two_stream",
    # Their code adds the mask to the vocabulary of GPT-2.
    mask_id=raw.get("mask_token_id", rows - 1),
    block_length=raw["block_size"] if blocks else 0,
  )


def write(config: TransformerConfig) -> dict[str, Any]:
  return dict(
    vocab_size=config.vocab_size,
    model_length=config.max_position,
    hidden_dim=config.dim,
    cond_dim=WIDTH,
    n_blocks=len(config.layers),
    n_heads=config.heads,
    dropout=0.0,
    time_conditioning=False,
    mask_token_id=config.mask_id,
  )


def write_eso(config: TransformerConfig) -> dict[str, Any]:
  values = write(config)
  values.pop("time_conditioning")
  # Without the modes, a reader would not know that this is (B).
  modes = dict.fromkeys(_ESO_MODES, "causal")
  return {_ESO_NAMES.get(name, name): value for name, value in values.items()} | modes


def write_blocks(config: TransformerConfig) -> dict[str, Any]:
  if config.predicts == "any_subset":
    return _write_sets(config)
  return dict(
    write(config),
    block_size=config.block_length,
    cross_attn=True,
    adaln=True,
    causal=False,
    # Without the buffers of a clipped schedule.
    var_min=False,
  )


def recipes(config: TransformerConfig, width: int | None = WIDTH) -> dict[str, Recipe]:
  """Returns {path: where it is stored}; `width` None: without anything that modulates."""
  c, base = config, "backbone"
  out = {"embedding/table": whole("rows", f"{base}.vocab_embed.embedding", c.vocab_size, c.dim)}
  if width is not None:
    out |= _linear("time/mlp/up", f"{base}.sigma_map.mlp.0", width, FREQUENCIES)
    out |= _linear("time/mlp/down", f"{base}.sigma_map.mlp.2", width, width)
  for index in range(len(c.layers)):
    ours, theirs = f"layer_{index}", f"{base}.blocks.{index}"
    name, starts = f"{theirs}.attn_qkv.weight", (0, c.dim, 2 * c.dim)
    qkv = fused_qkv(c, [name] * 3, [(3 * c.dim, c.dim)] * 3, starts)
    out |= {
      f"{ours}/attention_norm/weight": whole("rows", f"{theirs}.norm1.weight", c.dim),
      f"{ours}/attention/qkv/kernel": Recipe("out_in", qkv),
      f"{ours}/attention/out/kernel": whole("out_in", f"{theirs}.attn_out.weight", c.dim, c.dim),
      f"{ours}/mlp_norm/weight": whole("rows", f"{theirs}.norm2.weight", c.dim),
      **_linear(f"{ours}/mlp/up", f"{theirs}.mlp.0", c.mlp_dim, c.dim),
      **_linear(f"{ours}/mlp/down", f"{theirs}.mlp.2", c.dim, c.mlp_dim),
    }
    if width is not None:
      name = f"{theirs}.adaLN_modulation"
      out |= _linear(f"{ours}/modulation", name, 6 * c.dim, width)
  last = f"{base}.output_layer"
  out["final_norm/weight"] = whole("rows", f"{last}.norm_final.weight", c.dim)
  if width is not None:
    out |= _linear("head/modulation", f"{last}.adaLN_modulation", 2 * c.dim, width)
  return out | _linear("head", f"{last}.linear", c.vocab_size, c.dim)


def of_file(family: Family, raw: Fields) -> Family:
  """Returns the family with the layout of one file, which says how wide the modulation is."""
  raw = _older(raw)
  width = raw["cond_dim"] if raw["adaln"] else None
  return dataclasses.replace(family, recipes=lambda config: recipes(config, width))


def _older(raw: Fields) -> Fields:
  """Returns the settings under the names of the older form.

  Raises ValueError for a network that is another one, whose settings the file does not hold.
  """
  if "backbone_config" not in raw:
    names = _ESO_NAMES.items() if raw["model_type"] == _ESO_TYPES[0] else ()
    given = {old: raw[new] for old, new in names if new in raw}
    return raw.updated(Fields(given, CONFIG, "config.json"))
  inner = Fields(raw["backbone_config"], CONFIG, "backbone_config of config.json")
  if not inner["_target_"].split(".")[-1].startswith("DIT"):
    raise ValueError(
      f"the backbone {inner['_target_']!r} is not supported, only DIT: config.json holds no "
      "settings of others"
    )
  values = {old: inner[new] for new, old in _NEW_NAMES.items() if new in inner}
  return raw.updated(Fields(values, CONFIG, "config.json"))


def _check_eso(raw: Fields) -> None:
  """Raises ValueError for Eso-LM (A), and warns where a file does not say which one it is."""
  if raw["model_type"] == _ESO_TYPES[0] and not any(name in raw for name in _ESO_MODES):
    warnings.warn(
      f"config.json of this Eso-LM has neither {' nor '.join(_ESO_MODES)}, like the authors' "
      "files: it is read as (B), whose entries see those before them; the logits of an Eso-LM (A) "
      "would be wrong",
      stacklevel=2,
    )
  for name, usual in _ESO_MODES.items():
    mode = raw.get(name, usual if raw["model_type"] == "esolm" else "causal")
    if mode != "causal":
      raise ValueError(
        f"an Eso-LM with {name} {mode!r} is not supported, only (B), whose entries see those "
        "before them: 'causal'"
      )


def _write_sets(config: TransformerConfig) -> dict[str, Any]:
  values = dict(write(config), adaln=True, causal=False)
  inner = {new: values[old] for new, old in _NEW_NAMES.items()}
  return dict(
    architectures=[_SETS],
    backbone_config={"_target_": "src.backbone.dit.DIT", **inner},
    length=config.max_position,
    vocab_size=config.vocab_size,
    mask_token_id=config.mask_id,
  )


def _linear(path: str, name: str, outputs: int, inputs: int) -> dict[str, Recipe]:
  return {
    f"{path}/kernel": whole("out_in", f"{name}.weight", outputs, inputs),
    f"{path}/bias": whole("rows", f"{name}.bias", outputs),
  }


_ESO_TYPES = ("EsoLM", "esolm")  # of the authors' files, and of SetDLM's code

_SHARED = dict(model_length=1024, vocab_size=50258, hidden_dim=768, n_blocks=12, n_heads=12)
_SHARED |= dict(time_conditioning=False, causal=False, adaln=True)

BD3LM = Family(
  model_type="bd3lm",
  architecture="BD3LM",
  defaults=dict(_SHARED, model_type="bd3lm", cond_dim=129, block_size=1, cross_attn=True),
  read=read,
  write=write_blocks,
  recipes=recipes,
  prefixes=("backbone.", ""),
  heads=("backbone.output_layer.linear.weight", "output_layer.linear.weight"),
  ignored=("sampling_eps_min", "sampling_eps_max", "static_attention_mask"),
  refusal=heads_must_divide,
  of_file=of_file,
  folding=Folding(fold, unfold),
)
MDLM = dataclasses.replace(
  BD3LM,
  model_type="mdlm",
  architecture="MDLM",
  defaults=dict(_SHARED, model_type="mdlm", cond_dim=129),
  write=write,
)
_ESO = dict(model_length=1024, vocab_size=50258, n_blocks=12, n_heads=12, cond_dim=128)
ESOLM = dataclasses.replace(
  BD3LM,
  model_type="EsoLM",
  architecture="EsoLM",
  defaults=dict(
    _ESO, model_type="EsoLM", hidden_size=768, time_conditioning=False, causal=False, adaln=True
  ),
  write=write_eso,
)
