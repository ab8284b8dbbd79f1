"""Methods of denoising by name: `mtjax.denoiser("llada", steps=32)`, and their configs."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from mtjax.registry.constraints import no_constraint
from mtjax.registry.denoising.adaptive import AdaptiveDenoiser
from mtjax.registry.denoising.denoiser import BlockDenoiser, Denoiser
from mtjax.registry.denoising.filler import CanvasFiller
from mtjax.registry.denoising.uniform_denoiser import UniformDenoiser
from mtjax.registry.drafters import check_settings

METHOD = "denoise"  # `config.method` of all of them
AnyDenoiser = Denoiser | BlockDenoiser | AdaptiveDenoiser | UniformDenoiser | CanvasFiller
# A setting that only one class has -> the class; `Denoiser` has none of them.
_KNOWN_BY: dict[str, type[AnyDenoiser]] = {
  "machine": BlockDenoiser,
  "causal": AdaptiveDenoiser,
  "rule": UniformDenoiser,
  "fill": CanvasFiller,
}

_LLADA = Denoiser(
  length=64, block_length=32, steps=32, order="sampled_probability", transfer="llada_counts"
)
_BLOCK_MODEL = "block"  # block-causal, with aligned logits
_RANDOM = dataclasses.replace(_LLADA, block_length=0, order="random")


@dataclasses.dataclass(frozen=True)
class DenoiserRow:
  """A method of denoising: its rules, in words, its paper, and the sampling that goes with it."""

  title: str
  paper: str
  denoiser: AnyDenoiser
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
  "maskgit": DenoiserRow(
    "MaskGIT: more per pass by a cosine, by confidence and noise that falls to nothing",
    "2202.04200",
    dataclasses.replace(_LLADA, block_length=0, steps=16, transfer="maskgit"),
    config="configs/decode/maskgit.py",
    sampling=dict(temperature=1.0),
  ),
  "top_margin": DenoiserRow(
    "top-k margin: equal numbers per pass, those whose two best tokens differ most first",
    "2502.06768",
    dataclasses.replace(_LLADA, order="top_margin"),
    config="configs/decode/top_margin.py",
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
  "pc_sampler": DenoiserRow(
    "PC-Sampler: one per pass, from the left, and first what is not frequent anywhere",
    "2508.13021",
    dataclasses.replace(
      _LLADA,
      block_length=0,
      steps=64,
      order="position_calibrated:decay=0.25:limit=10:frequencies=bundled",
    ),
    config="configs/decode/pc_sampler.py",
  ),
  "klass": DenoiserRow(
    "KLASS: all positions above a threshold whose distribution has stopped moving",
    "2511.05664",
    dataclasses.replace(
      _LLADA,
      steps=64,
      order="stability:changes=2",
      transfer="klass:threshold=0.9:drift=0.01",
    ),
    config="configs/decode/klass.py",
  ),
  "credit": DenoiserRow(
    "CreditDecoding: tokens that were the most probable in earlier passes get credit",
    "2510.06133, 2510.08666",
    dataclasses.replace(
      _LLADA, steps=64, order="credit", transfer="threshold:threshold=0.9", cache="vicinity"
    ),
    config="configs/decode/credit.py",
  ),
  "hierarchy": DenoiserRow(
    "dInfer's hierarchy: the best position of every run of masks",
    "2510.08666",
    dataclasses.replace(_LLADA, steps=64, transfer="hierarchy", cache="vicinity"),
    config="configs/decode/hierarchy.py",
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
  "dilated": DenoiserRow(
    "DUS: positions of a coarse grid, then those of finer ones",
    "2506.19037",
    dataclasses.replace(_RANDOM, block_length=32, steps=64, transfer="dilated"),
    config="configs/decode/dilated.py",
    sampling=dict(temperature=1.0),
  ),
  "halton": DenoiserRow(
    "Halton order: four positions per pass, far from each other",
    "2503.17076",
    dataclasses.replace(_LLADA, steps=16, order="halton"),
    config="configs/decode/halton.py",
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
    model=_BLOCK_MODEL,
  ),
  "lookahead": DenoiserRow(
    "self-speculation: LLaDA's passes one by one, several of them from one forward pass",
    "2510.00294, 2510.04147",
    dataclasses.replace(_LLADA, steps=64, lookahead=3),
    config="configs/decode/lookahead.py",
  ),
  "classifier_free": DenoiserRow(
    "classifier-free guidance: away from what the model says without the prompt",
    "2502.09992",
    dataclasses.replace(_LLADA, guidance="classifier_free:scale=0.5"),
    config="configs/decode/classifier_free.py",
  ),
  "growing_contrast": DenoiserRow(
    "M3ID-like contrast: the same, the more the farther from the prompt",
    "2403.14003",
    dataclasses.replace(_LLADA, guidance="growing_contrast:decay=0.02"),
    config="configs/decode/growing_contrast.py",
  ),
  "soft_iteration": DenoiserRow(
    "dInfer's soft iteration: inputs of masks tell what the last pass expected there",
    "2510.08666",
    dataclasses.replace(_LLADA, transfer="falling_threshold", guidance="soft_iteration"),
    config="configs/decode/soft_iteration.py",
  ),
  "apd": DenoiserRow(
    "APD: from left to right, as many tokens per pass as a causal model agrees with",
    "2506.00413",
    AdaptiveDenoiser(),
    config="configs/decode/apd.py",
    sampling=dict(temperature=0.7),
  ),
  "llada21": DenoiserRow(
    "LLaDA2.1: masks above a threshold, and edits of tokens above another",
    "2602.08676",
    dataclasses.replace(
      _LLADA,
      block_length=0,
      steps=64,
      transfer="threshold:threshold=0.95",
      revise="edit:threshold=0.9",
      cache="exact",
    ),
    config="configs/decode/llada21.py",
    model=_BLOCK_MODEL,
  ),
  "llada22": DenoiserRow(
    "LLaDA2.2: the same, and tokens are deleted and inserted",
    "LLaDA2.2",
    dataclasses.replace(
      _LLADA,
      block_length=0,
      steps=64,
      transfer="threshold:threshold=0.95",
      revise="levenshtein:threshold=0.9",
      cache="exact",
    ),
    config="configs/decode/llada22.py",
    model="",  # its vocabulary has tokens that delete and insert
  ),
  "d2f": DenoiserRow(
    "D2F: up to four blocks in flight, each begun before the one before is decided",
    "2508.09192",
    BlockDenoiser(machine="pipeline"),
    config="configs/decode/d2f.py",
    model=_BLOCK_MODEL,
  ),
  "multi_bd": DenoiserRow(
    "MultiBD: a buffer of four blocks over exact keys of finished ones",
    "Diffulex",
    BlockDenoiser(machine="block_buffer"),
    config="configs/decode/multi_bd.py",
    model=_BLOCK_MODEL,
  ),
  "dmax": DenoiserRow(
    "DMax: tokens are decided anew in every pass, and seen as far as they are sure",
    "Diffulex",
    BlockDenoiser(machine="token_merge"),
    config="configs/decode/dmax.py",
    model=_BLOCK_MODEL,
  ),
  "fast_dllm_v2": DenoiserRow(
    "Fast-dLLM v2: blocks in sub-blocks, one token of each from the commit of the one before",
    "2509.26328",
    BlockDenoiser(machine="sub_blocks:sub_block=8:threshold=0.9"),
    config="configs/decode/fast_dllm_v2.py",
    model="",  # it needs shifted logits
  ),
  "diffusion_gemma": DenoiserRow(
    "DiffusionGemma: uniform canvases, whose unsure positions become noise again",
    "DiffusionGemma; 2505.24857",
    UniformDenoiser(),
    config="configs/decode/diffusion_gemma.py",
    model="",
  ),
  "gidd": DenoiserRow(
    "GIDD: masks and uniform noise, each position by its own posterior",
    "2503.04482",
    UniformDenoiser(length=64, steps=64, rule="gidd"),
    config="configs/decode/gidd.py",
    model="",
  ),
  "set": DenoiserRow(
    "Set Diffusion: an any-subset model's masks, all sure ones of a sliding window",
    "2607.01775",
    CanvasFiller(),
    config="configs/decode/set.py",
    model="anysubset",
  ),
}


def get_row(name: str) -> DenoiserRow:
  """Returns a method of denoising. Raises ValueError, with the known names, for another name."""
  if name not in DENOISERS:
    raise ValueError(f"method of denoising {name!r} is not one of: {', '.join(DENOISERS)}")
  return DENOISERS[name]


def denoiser(name: str, **settings: Any) -> AnyDenoiser:
  """Returns a registered method of denoising with its settings as keywords.

  Names are those of docs/methods.md, the settings those of `Denoiser`, for a method by a machine of
  `BlockDenoiser`, for "apd" of `AdaptiveDenoiser`, for the methods of uniform canvases,
  "diffusion_gemma" and "gidd", of `UniformDenoiser`, and for "set" of `CanvasFiller`; a rule among
  them is a name ("threshold:threshold=0.8") or a rule itself. What is not given has the method's
  default. The sampling that its config has is not part of it: `TextModel.denoise` takes that.

  Example: `model.denoise(prompts, method=mtjax.denoiser("llada", length=128, steps=32))`.

  Raises ValueError, with the known ones, for another name or setting, and as these classes do.
  """
  made = get_row(name).denoiser
  known = [field.name for field in dataclasses.fields(made)]
  check_settings(f"method of denoising, {name},", settings, known)
  return dataclasses.replace(made, **settings)


def denoise_config(name: str) -> ConfigDict:
  """Returns the settings of a method of denoising by name.

  The group `config.denoise` has those of `Denoiser`, or of another class (`make_denoiser`). Raises
  ValueError, with the known names, for an unknown one.
  """
  row = get_row(name)
  sampling = dict(temperature=0.0, top_k=0, top_p=1.0, min_p=0.0) | dict(row.sampling)
  return ConfigDict(
    dict(
      method=METHOD,
      # A masked model: a bundled one, a folder, or a Hugging Face id (owner/name[@revision]).
      model=row.model,
      dtype="",  # dtype of weights and activations; "": weights as stored, activations float32
      weights="stored",  # "stored", or "int8" (another, smaller model)
      mesh="",  # devices, such as "data:2,model:4"; "": one
      prompt_format="text",  # or "chat": a prompt is a user's turn in the model's chat template
      **sampling,
      seed=0,
      constraint=no_constraint(),
      denoise=dataclasses.asdict(row.denoiser),
    )
  )


def make_denoiser(config: Mapping[str, Any]) -> AnyDenoiser:
  """Returns the method of denoising of a config, `config.denoise`.

  The class is known by a setting that no other has: `machine`, `causal`, `rule` or `fill`. Raises
  ValueError for a setting that there is not, and as the class does.
  """
  settings = dict(config["denoise"])
  made: type[AnyDenoiser] = Denoiser
  for setting, other in _KNOWN_BY.items():
    made = other if setting in settings else made
  known = [field.name for field in dataclasses.fields(made)]
  check_settings("group, denoise,", settings, known)
  return made(**settings)
