"""A model that decodes, from the folder of a training run."""

import json
from pathlib import Path

import jax
from jax.sharding import SingleDeviceSharding

from mtjax.checkpoints.training import Checkpoints
from mtjax.pretrained import tokenizer_of
from mtjax.text import TextModel
from mtjax.train import config as config_lib
from mtjax.train.optimizers import make_optimizer
from mtjax.train.step import init_state, parameters_to_use

CONFIG_FILE = "config.json"


def load_trained(workdir: str | Path) -> tuple[TextModel, int]:
  """Returns the model of a run's newest valid checkpoint, with the run's tokenizer, and its step.

  The parameters are the average if the run keeps one. Raises FileNotFoundError for a folder that
  holds no run or no checkpoint yet, and ValueError if no checkpoint can be read.
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
  shapes = jax.eval_shape(
    lambda: init_state(settings.model, optimizer, seed=settings.seed, ema=settings.ema)
  )
  state = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device), shapes)
  checkpoints = Checkpoints(workdir / "checkpoints", identity=None)
  try:
    newest = checkpoints.restore(state)
  finally:
    checkpoints.close()
  if newest is None:
    raise FileNotFoundError(f"the run in {str(workdir)!r} has saved no checkpoint yet")
  step, restored = newest
  tokenizer = tokenizer_of(settings.data["tokenizer"])
  return TextModel(settings.model, parameters_to_use(restored.state), tokenizer), step
