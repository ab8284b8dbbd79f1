"""Methods of denoising by name: `mtjax.denoiser("llada", steps=32)`, and their configs."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from mtjax.registry.denoising.denoiser import Denoiser
from mtjax.registry.drafters import check_settings

METHOD = "denoise"  # `config.method` of all of them

_LLADA = Denoiser(
  length=64, block_length=32, steps=32, order="sampled_probability", transfer="llada_counts"
)
_RANDOM = dataclasses.replace(_LLADA, block_length=0, order="random")


@dataclasses.dataclass(frozen=True)
class DenoiserRow:
  """A method of denoising: its rules, in words, its paper, and the sampling that goes with it."""

  title: str
  paper: str
  denoiser: Denoiser
  config: str
  sampling: Mapping[str, float] = dataclasses.field(default_factory=dict)
  model: str = "masked"


DENOISERS: dict[str, DenoiserRow] = {
  "llada": DenoiserRow(
    "LLaDA: equal numbers per pass, the surest first",
    "2502.09992",
    _LLADA,
    config="configs/decode/llada.py",
  ),
  "dream": DenoiserRow(
    "Dream: a share of the masks per pass, those of lowest entropy first",
    "2508.15487",
    Denoiser(
      length=64, steps=32, order="low_entropy", transfer="dream_counts", filtered_confidence=True
    ),
    config="configs/decode/dream.py",
    sampling=dict(temperature=0.2, top_p=0.95),
  ),
  "fast_dllm": DenoiserRow(
    "Fast-dLLM: all positions above a threshold, over old keys of the text before",
    "2505.22618",
    dataclasses.replace(_LLADA, transfer="threshold:threshold=0.9", cache="prefix"),
    config="configs/decode/fast_dllm.py",
  ),
  "eb_sampler": DenoiserRow(
    "EB-sampler: as many positions as a bound on their mutual information allows",
    "2505.24857",
    Denoiser(length=64, steps=64, order="low_entropy", transfer="entropy_bound:gamma=0.1"),
    config="configs/decode/eb_sampler.py",
  ),
  "wino": DenoiserRow(
    "WINO: many positions at a low threshold, verified by shadow entries",
    "2507.18578",
    dataclasses.replace(
      _LLADA,
      transfer="wino_draft:threshold=0.6",
      revise="wino:threshold=0.9",
    ),
    config="configs/decode/wino.py",
  ),
  "mdlm": DenoiserRow(
    "MDLM: ancestral sampling, each position by a coin of its own",
    "2406.07524",
    dataclasses.replace(_RANDOM, steps=64, transfer="ancestral"),
    config="configs/decode/mdlm.py",
    sampling=dict(temperature=1.0),
  ),
  "first_hitting": DenoiserRow(
    "first-hitting sampling: one random position per pass",
    "2409.02908",
    dataclasses.replace(_RANDOM, steps=64, transfer="first_hitting"),
    config="configs/decode/first_hitting.py",
    sampling=dict(temperature=1.0),
  ),
  "remdm": DenoiserRow(
    "ReMDM: ancestral sampling that masks tokens again",
    "2503.00307",
    dataclasses.replace(_RANDOM, steps=128, transfer="ancestral", revise="remdm_cap:eta=0.008"),
    config="configs/decode/remdm.py",
    sampling=dict(temperature=1.0, top_p=0.9),
  ),
  "block": DenoiserRow(
    "block diffusion with the exact cache of finished blocks",
    "2503.09573",
    dataclasses.replace(
      _LLADA, block_length=0, steps=64, transfer="threshold:threshold=0.9", cache="exact"
    ),
    config="configs/decode/block.py",
    model="",
  ),
}


def get_row(name: str) -> DenoiserRow:
  """Returns a method of denoising. Raises ValueError, with the known names, for another name."""
  if name not in DENOISERS:
    raise ValueError(f"method of denoising {name!r} is not one of: {', '.join(DENOISERS)}")
  return DENOISERS[name]


def denoiser(name: str, **settings: Any) -> Denoiser:
  """Returns a registered method of denoising with its settings as keywords.

  Names are those of docs/methods.md, the settings those of `Denoiser`; a rule among them is a name
  ("threshold:threshold=0.8") or a rule itself. What is not given has the method's default. The
  sampling that its config has is not part of it: `TextModel.denoise` takes that.

  Example: `model.denoise(prompts, method=mtjax.denoiser("llada", length=128, steps=32))`.

  Raises ValueError, with the known ones, for another name or setting, and as `Denoiser` does.
  """
  row = get_row(name)
  known = [field.name for field in dataclasses.fields(Denoiser)]
  check_settings(f"method of denoising, {name},", settings, known)
  return dataclasses.replace(row.denoiser, **settings)


def denoise_config(name: str) -> ConfigDict:
  """Returns the settings of a method of denoising by name.

  The group `config.denoise` has those of `Denoiser`. Raises ValueError, with the known names, for
  an unknown one.
  """
  row = get_row(name)
  sampling = dict(temperature=0.0, top_k=0, top_p=1.0, min_p=0.0) | dict(row.sampling)
  return ConfigDict(
    dict(
      method=METHOD,
      # A masked model: a bundled one, a folder, or a Hugging Face id (owner/name[@revision]). "":
      # none is bundled for this method.
      model=row.model,
      dtype="",  # dtype of weights and activations; "": weights as stored, activations float32
      weights="stored",  # "stored", or "int8" (another, smaller model)
      prompt_format="text",  # or "chat": a prompt is a user's turn in the model's chat template
      **sampling,
      seed=0,
      denoise=dataclasses.asdict(row.denoiser),
    )
  )


def make_denoiser(config: Mapping[str, Any]) -> Denoiser:
  """Returns the method of denoising of a config, `config.denoise`.

  Raises ValueError for a setting that there is not, and as `Denoiser` does.
  """
  settings = dict(config["denoise"])
  known = [field.name for field in dataclasses.fields(Denoiser)]
  check_settings("group, denoise,", settings, known)
  return Denoiser(**settings)
