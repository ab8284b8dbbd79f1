"""The checked, frozen settings of a run, from the ConfigDict of a launcher."""

import dataclasses
import functools
import inspect
from collections.abc import Mapping
from typing import Any

from mtjax import sharding
from mtjax.models import (
  ANY_SUBSET_NAMES,
  DiffusionGemmaConfig,
  Model,
  Rope,
  TransformerConfig,
  XLNetConfig,
  canvas_layers,
  uniform_layers,
)
from mtjax.train.defaults import defaults
from mtjax.train.fields import check_fields, check_groups
from mtjax.train.losses.objective import Objective
from mtjax.train.losses.old_names import identity_names, with_new_names
from mtjax.train.losses.registry import OBJECTIVES, get_objective, make_settings
from mtjax.train.optimizers import OptimizerConfig, Schedule
from mtjax.train.trained import Adaptation, trained_shapes

KINDS = {config.kind: config for config in (TransformerConfig, XLNetConfig, DiffusionGemmaConfig)}


# Fields of `config.model` that say what the layers of a DiffusionGemma are.
_LAYER_FIELDS = dict(inspect.signature(canvas_layers).parameters)
_LAYER_FIELDS.pop("count")


@dataclasses.dataclass(frozen=True)
class RunConfig:
  """All settings of a run. `mtjax.train.defaults` says what each field means."""

  model: Model
  optimizer: OptimizerConfig
  schedule: Schedule
  data: dict[str, Any]
  init: str
  lora: Adaptation | None
  objective: str
  objective_settings: Any
  batch: int
  length: int
  accumulate: int
  ema: float
  seed: int
  mesh: Mapping[str, int]
  log_every: int
  eval_every: int
  save_every: int
  keep: int
  tensorboard: bool

  @functools.cached_property
  def loss(self) -> Objective:
    """The objective, for this model."""
    return get_objective(self.objective).build(self.model, self.objective_settings)

  def identity(self) -> dict[str, Any]:
    """Returns the settings that must equal those of a checkpoint to continue from it.

    They are all that changes the loss curve, without the schedule (`Schedule` says how a run may be
    extended), the mesh and the intervals. The data has an identity of its own, which does not
    depend on where its files are.
    """
    config = self.model.config
    model = dataclasses.asdict(config)
    # They round differently, and may be others on another machine.
    model.pop("attention", None)
    model.pop("layer_loop", None)
    # The objective has it, with its settings.
    model.pop("noise", None)
    # Fields that are newer than runs which may still be continued count only where they are used.
    if not config.exits:
      model.pop("exits", None)
    newer = dict(
      target_conditioning="none",
      any_subset_rows="two_stream",
      mask_id=None,
      alignment="aligned",
      block_length=0,
      head_bias=False,
    )
    for name, unused in newer.items():
      if model.get(name, unused) == unused:
        model.pop(name, None)
    for name, before in _unsaid(self.objective, config.extra_embeddings).items():
      if getattr(config, name) == before:
        model.pop(name, None)
    if config.kind != "transformer":
      model["kind"] = config.kind
    used: dict[str, Any] = {"init": self.init} if self.init else {}
    if self.lora is not None:
      used["lora"] = dataclasses.asdict(self.lora)
    objective, settings = identity_names(self.objective)
    own = dataclasses.asdict(self.objective_settings)
    # Runs of block diffusion that are older than this setting lack it.
    if self.objective == "block_diffusion" and not own["anneal"]:
      own.pop("anneal")
    if own:
      used[settings] = own
    return dict(
      used,
      model=model,
      optimizer=dataclasses.asdict(self.optimizer),
      objective=objective,
      batch=self.batch,
      length=self.length,
      accumulate=self.accumulate,
      ema=self.ema,
      seed=self.seed,
    )


def read(config: Mapping[str, Any]) -> RunConfig:
  """Returns a config's checked settings; `mtjax.train.defaults` has the fields.

  Raises ValueError that says which field is wrong.
  """
  # Runs that are older than `init` and `lora` lack them.
  usual = defaults()
  given: dict[str, Any] = {
    "init": usual.init,
    "lora": usual.lora.to_dict(),
    **with_new_names(config),
  }
  check_fields(given)
  objective = given["objective"]
  fields = {name: value for name, value in given.items() if name not in OBJECTIVES}
  schedule = Schedule(*(fields.pop(name) for name in ("steps", "warmup", "decay")))
  objective_settings = make_settings(objective, given.get(objective, {}))
  out = RunConfig(
    model=_model(fields.pop("model"), objective),
    optimizer=OptimizerConfig(**fields.pop("optimizer")),
    schedule=schedule,
    data=dict(fields.pop("data")),
    lora=Adaptation.of(fields.pop("lora")),
    mesh=sharding.mesh_sizes(fields.pop("mesh")),
    objective_settings=objective_settings,
    **fields,
  )
  for name in ("batch", "length", "accumulate", "log_every", "save_every", "keep"):
    if getattr(out, name) < 1:
      raise ValueError(f"{name} must be at least 1, got {getattr(out, name)}")
  predicts, trained = out.model.config.predicts, get_objective(objective).predicts
  if predicts == "masked" and out.data.get("eval_sources"):
    raise ValueError(
      "data.eval_sources are scored from left to right, and a masked model is not trained for "
      "that: leave them empty, and bound its likelihood: mtjax.diffusion.likelihood"
    )
  if predicts == "canvas" and out.data.get("eval_sources"):
    raise ValueError(
      "data.eval_sources are scored from left to right, and a model of canvases is not made for "
      "that: leave them empty; its metrics have the loss of its causal half, next_token"
    )
  if predicts == "any_subset" and out.data.get("eval_sources"):
    raise ValueError(
      "data.eval_sources are scored from left to right, and an any-subset model is not trained for "
      "that: leave them empty, and score the exported model: experiments.evaluate --orders=lattice"
    )
  if out.model.config.kind == "xlnet" and predicts not in trained:
    raise ValueError(
      f"objective {objective!r} trains causal models, and an entry of an XLNet sees itself; "
      "train it with the objective 'any_subset'"
    )
  if predicts not in trained:
    raise ValueError(
      f"objective {objective!r} trains models of model.predicts "
      f"{' or '.join(map(repr, trained))}, and this one has {predicts!r}"
    )
  check_groups(given)
  out = _with_noise(out)
  if out.batch % out.accumulate:
    raise ValueError(f"a batch of {out.batch} does not divide into {out.accumulate} parts")
  if not 0 <= out.ema < 1:
    raise ValueError(f"ema must be from 0 (none) to below 1, got {out.ema}")
  if out.mesh[sharding.SEQUENCE] > 1:
    raise ValueError(
      "the axis sequence of a mesh splits caches, which training has none of: give data and model"
    )
  if (out.batch // out.accumulate) % out.mesh[sharding.DATA]:
    raise ValueError(
      f"{out.batch // out.accumulate} rows per part (batch / accumulate) do not divide over "
      f"{out.mesh[sharding.DATA]} data shards"
    )
  if out.length > out.model.config.max_position:
    raise ValueError(
      f"length {out.length} exceeds the model's {out.model.config.max_position} positions"
    )
  _ = out.loss  # refuses a model that it cannot train
  trained_shapes(out.model, out.lora)  # refuses adapters that it lacks the weights for
  return out


def _unsaid(objective: str, extra_embeddings: int) -> dict[str, Any]:
  """Returns the model's fields that configs of older runs lack, with their values in those runs."""
  predicts = get_objective(objective).predicts[0]
  names = ANY_SUBSET_NAMES[:extra_embeddings] if predicts == "any_subset" else ()
  return dict(predicts=predicts, extra_names=names)


def _with_noise(run: RunConfig) -> RunConfig:
  """Returns the run with what its objective trains a masked model to denoise in its model."""
  config = run.model.config
  if not isinstance(config, TransformerConfig) or config.predicts != "masked":
    return run
  _ = run.loss  # says what a model of this noise needs, in the words of the objective
  noise = get_objective(run.objective).noise(run.objective_settings)
  return dataclasses.replace(run, model=Model(dataclasses.replace(config, noise=noise)))


def _model(config: Mapping[str, Any], objective: str) -> Model:
  # Runs that are older than `kind` lack it.
  fields: dict[str, Any] = {"kind": "transformer", **config}
  kind, layers = fields.pop("kind"), fields.pop("layers")
  if kind not in KINDS:
    raise ValueError(f"model.kind {kind!r} is not one of: {', '.join(KINDS)}")
  if layers < 1:
    raise ValueError(f"model.layers must be at least 1, got {layers}")
  known: dict[str, Any] = {f.name: f for f in dataclasses.fields(KINDS[kind])}
  known = {name: field for name, field in known.items() if name not in ("layers", "depth", "noise")}
  if kind == "transformer":
    known["rope_theta"] = next(field for field in dataclasses.fields(Rope) if field.name == "theta")
  if kind == "diffusion_gemma":
    known |= _LAYER_FIELDS
  if unknown := sorted(fields.keys() - known):
    raise ValueError(
      f"model.{', model.'.join(unknown)}: a model of the kind {kind!r} has no such setting; it has "
      f"layers, {', '.join(sorted(known))}"
    )
  absent = (dataclasses.MISSING, inspect.Parameter.empty)
  needed = {name for name, field in known.items() if field.default in absent}
  if missing := sorted(needed - fields.keys()):
    raise ValueError(
      f"model.{', model.'.join(missing)}: a model of the kind {kind!r} needs it, but it is missing"
    )
  if kind == "xlnet":
    return Model(XLNetConfig(depth=layers, **fields))
  if kind == "diffusion_gemma":
    each = {name: fields.pop(name) for name in _LAYER_FIELDS if name in fields}
    return Model(DiffusionGemmaConfig(layers=canvas_layers(layers, **each), **fields))
  fields = _unsaid(objective, fields.get("extra_embeddings", 0)) | fields
  for name in ("exits", "extra_names"):
    fields[name] = tuple(fields.get(name, ()))
  rope = Rope(theta=fields.pop("rope_theta", Rope.theta))
  return Model(TransformerConfig(layers=uniform_layers(layers, rope=rope), **fields))
