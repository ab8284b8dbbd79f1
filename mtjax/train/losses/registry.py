"""Every objective of training: its settings, how it is built, what it trains, and a run of it.

The table of docs/methods.md is made from this one by `python -m docs.make.methods`.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from ml_collections import ConfigDict

from mtjax.anysubset.masking import Masking
from mtjax.models import Model
from mtjax.train.losses.any_subset import any_subset_loss
from mtjax.train.losses.block_diffusion import BlockDiffusion, block_diffusion_loss
from mtjax.train.losses.canvas_diffusion import CanvasDiffusion, canvas_diffusion_loss
from mtjax.train.losses.editing.levenshtein_edits import LevenshteinEdits, levenshtein_edits_loss
from mtjax.train.losses.editing.token_edits import TokenEdits, token_edits_loss
from mtjax.train.losses.eso import EsoDiffusion, eso_loss
from mtjax.train.losses.masked_diffusion import MaskedDiffusion, masked_diffusion_loss
from mtjax.train.losses.next_token import next_token_loss
from mtjax.train.losses.objective import NoSettings, Objective
from mtjax.train.losses.s2d import s2d_loss
from mtjax.train.losses.set_diffusion import SetDiffusion, set_diffusion_loss
from mtjax.train.losses.uniform_diffusion import UniformDiffusion, uniform_diffusion_loss


@dataclasses.dataclass(frozen=True)
class ObjectiveRow:
  """A row of the registry: everything that the project knows of an objective.

  Paths are relative to the repository.

  `build(model, settings)` returns the `Objective`, and raises ValueError for a model that it cannot
  train. `settings` is a frozen dataclass whose fields all have defaults: in a config, the group
  that has the objective's name.
  """

  build: Callable[[Model, Any], Objective]
  summary: str  # one sentence
  paper: str
  file: str
  settings: type = NoSettings
  predicts: tuple[str, ...] = ("next_token",)  # of the models that it trains
  config: str = "configs/train/tiny.py"  # of any causal model
  noise: Callable[[Any], str] = lambda settings: "absorbing"  # of masked models, for given settings


OBJECTIVES: dict[str, ObjectiveRow] = {
  "next_token": ObjectiveRow(
    next_token_loss,
    summary="Cross-entropy of every next token.",
    paper="-",
    file="mtjax/train/losses/next_token.py",
    config="configs/train/shakespeare.py",
  ),
  "s2d": ObjectiveRow(
    s2d_loss,
    summary="Cross-entropy of every next token, the mean over all exits (`model.exits`).",
    paper="2309.08968, 2407.01955",
    file="mtjax/train/losses/s2d.py",
    config="configs/train/sorted_draft.py",
  ),
  "any_subset": ObjectiveRow(
    any_subset_loss,
    summary="Cross-entropy of random targets, jointly, given the rest of the text as context.",
    paper="2504.20456",
    file="mtjax/train/losses/any_subset.py",
    settings=Masking,
    predicts=("any_subset",),
    config="configs/train/bundled_anysubset.py",
  ),
  "set_diffusion": ObjectiveRow(
    set_diffusion_loss,
    summary="Cross-entropy of every token given those before it in an order that mixes neighbours.",
    paper="2607.01775",
    file="mtjax/train/losses/set_diffusion.py",
    settings=SetDiffusion,
    predicts=("any_subset",),
    config="configs/train/set_diffusion.py",
  ),
  "eso": ObjectiveRow(
    eso_loss,
    summary="Bound of tokens that come by masked diffusion, and then of the rest, left to right.",
    paper="2506.01928",
    file="mtjax/train/losses/eso.py",
    settings=EsoDiffusion,
    predicts=("any_subset",),
    config="configs/train/eso.py",
  ),
  "masked_diffusion": ObjectiveRow(
    masked_diffusion_loss,
    summary="Bound of masked diffusion: weighted cross-entropy of tokens masked at random times.",
    paper="2406.07524, 2406.04329, 2502.09992",
    file="mtjax/train/losses/masked_diffusion.py",
    settings=MaskedDiffusion,
    predicts=("masked",),
    config="configs/train/masked_diffusion.py",
  ),
  "block_diffusion": ObjectiveRow(
    block_diffusion_loss,
    summary="Bound of masked diffusion of each block, given the clean blocks before it.",
    paper="2503.09573",
    file="mtjax/train/losses/block_diffusion.py",
    settings=BlockDiffusion,
    predicts=("masked",),
    config="configs/train/block_diffusion.py",
  ),
  "uniform_diffusion": ObjectiveRow(
    uniform_diffusion_loss,
    summary="Bound of diffusion with uniform noise, alone or with masks.",
    paper="2412.10193, 2503.04482",
    file="mtjax/train/losses/uniform_diffusion.py",
    settings=UniformDiffusion,
    predicts=("masked",),
    config="configs/train/uniform_diffusion.py",
    noise=lambda settings: settings.noise,
  ),
  "canvas_diffusion": ObjectiveRow(
    canvas_diffusion_loss,
    summary="Cross-entropy of canvases of random tokens after causal text, with self-conditioning.",
    paper="DiffusionGemma, 2208.04202",
    file="mtjax/train/losses/canvas_diffusion.py",
    settings=CanvasDiffusion,
    predicts=("canvas",),
    config="configs/train/canvas_diffusion.py",
  ),
  "token_edits": ObjectiveRow(
    token_edits_loss,
    summary="Cross-entropy of masked tokens, and of the right tokens in a draft with wrong ones.",
    paper="2602.08676",
    file="mtjax/train/losses/editing/token_edits.py",
    settings=TokenEdits,
    predicts=("masked",),
    config="configs/train/token_edits.py",
  ),
  "levenshtein_edits": ObjectiveRow(
    levenshtein_edits_loss,
    summary="Cross-entropy of masked tokens, and of the edits that lead from a draft to a text.",
    paper="LLaDA2.2",
    file="mtjax/train/losses/editing/levenshtein_edits.py",
    settings=LevenshteinEdits,
    predicts=("masked",),
    config="configs/train/levenshtein_edits.py",
  ),
}


def get_objective(name: str) -> ObjectiveRow:
  """Returns the row of an objective. Raises ValueError, with the names there are, for others."""
  if name not in OBJECTIVES:
    raise ValueError(f"objective {name!r} is not one of: {', '.join(OBJECTIVES)}")
  return OBJECTIVES[name]


def defaults_of(name: str) -> dict[str, Any]:
  """Returns the settings of an objective with their defaults."""
  return dataclasses.asdict(get_objective(name).settings())


def objective_settings(name: str, **changes: Any) -> ConfigDict:
  """Returns the settings of an objective for a config: config.any_subset, say.

  All of them, so that each is a flag of the launcher: --config.any_subset.queries=8. Raises
  ValueError for an unknown objective or setting.
  """
  out = defaults_of(name)
  if unknown := sorted(changes.keys() - out.keys()):
    raise ValueError(
      f"the objective {name!r} has no setting {' and '.join(unknown)}; it has: "
      f"{', '.join(out) or 'none'}"
    )
  return ConfigDict(out | changes)


def make_settings(name: str, fields: Mapping[str, Any]) -> Any:
  """Returns an objective's settings of a config's fields; lists, as JSON has them, are tuples.

  Raises ValueError for a value that the settings refuse.
  """
  values = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
  try:
    return get_objective(name).settings(**values)
  except ValueError as error:
    raise ValueError(f"config.{name}: {error}") from None
