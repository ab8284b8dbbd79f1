"""A model that decodes, or its adapters alone, from the folder of a training run."""

import functools
import json
from pathlib import Path

import jax
from jax.sharding import SingleDeviceSharding

from mtjax.checkpoints.adapters import save_adapters
from mtjax.checkpoints.training import Checkpoints
from mtjax.models import Model, Params, count_parameters
from mtjax.models.stacking import Stacks, unrolled, unstack_params
from mtjax.pretrained import tokenizer_of
from mtjax.text import TextModel
from mtjax.train import config as config_lib
from mtjax.train.optimizers import make_optimizer
from mtjax.train.step import init_state, parameters_to_use
from mtjax.train.trained import initial_parts, trained_shapes, whole_params

CONFIG_FILE = "config.json"


def load_trained(workdir: str | Path) -> tuple[TextModel, int]:
  """Returns the model of a run's newest valid checkpoint, with the run's tokenizer, and its step.

  The parameters are the average if the run keeps one; adapters are merged, and stacked layers are
  unrolled. Raises FileNotFoundError for a folder that holds no run or no checkpoint yet, and
  ValueError if no checkpoint can be read.
  """
  settings, trained, step = restore_trained(workdir)
  model, lora = settings.model, settings.lora
  frozen = None
  if lora is not None:
    frozen = initial_parts(model, settings.init, lora, seed=settings.seed).frozen
  params = unstack_params(whole_params(lora, trained, frozen), Stacks.of(model.config))
  tokenizer = tokenizer_of(settings.data["tokenizer"])
  return TextModel(Model(unrolled(model.config)), params, tokenizer), step


def save_trained_adapters(workdir: str | Path, folder: str | Path, dtype: str = "bfloat16") -> int:
  """Writes the adapters of a run's newest checkpoint alone, in peft's format; returns their number.

  Raises ValueError for a run that trains all parameters, or over random ones, and as `load_trained`
  does.
  """
  settings, trained, _ = restore_trained(workdir)
  if settings.lora is None or not settings.init:
    raise ValueError(
      f"the run in {str(workdir)!r} trains no adapters of a model that can be loaded"
    )
  config = settings.model.config
  adapters = unstack_params(trained, Stacks.of(config))
  save_adapters(
    folder,
    unrolled(config),
    adapters,
    base=settings.init,
    scale=settings.lora.lora.scale,
    dtype=dtype,
  )
  return count_parameters(adapters)


def restore_trained(workdir: str | Path) -> tuple[config_lib.RunConfig, Params, int]:
  """Returns a run's settings, and what it trained so far, with the number of its steps.

  These are all parameters or the adapters of `mtjax.train.trained`, and the average of them if the
  run keeps one. Raises as `load_trained` does.
  """
  workdir = Path(workdir)
  file = workdir / CONFIG_FILE
  if not file.is_file():
    raise FileNotFoundError(
      f"{str(workdir)!r} is not the folder of a training run: it has no {CONFIG_FILE}"
    )
  settings = config_lib.read(json.loads(file.read_text(encoding="utf-8")))
  optimizer = make_optimizer(settings.optimizer, settings.schedule)
  device = SingleDeviceSharding(jax.devices()[0])
  init = functools.partial(
    init_state, settings.model, optimizer, seed=settings.seed, ema=settings.ema
  )
  trained = trained_shapes(settings.model, settings.lora)
  shapes = jax.eval_shape(lambda params: init(params=params), trained)
  state = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device), shapes)
  checkpoints = Checkpoints(workdir / "checkpoints", identity=None)
  try:
    newest = checkpoints.restore(state)
  finally:
    checkpoints.close()
  if newest is None:
    raise FileNotFoundError(f"the run in {str(workdir)!r} has saved no checkpoint yet")
  step, restored = newest
  return settings, parameters_to_use(restored.state), step
