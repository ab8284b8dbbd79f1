"""The plan of a machine against settings that are chosen by hand: speed, and its prediction."""

import dataclasses
import functools
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mtjax.decode.speculative import Speculative
from mtjax.planning.speeds import Make, measure_speeds, plain
from mtjax.registry.auto import find_plan, wants_plan
from mtjax.registry.build import make_method
from mtjax.text import Prompt, TextModel
from mtjax.trees import chain
from mtjax.tuning.competitors import Competitor, RoundKind
from mtjax.tuning.online import FirstPlanner
from mtjax.tuning.online.chooser import described
from mtjax.tuning.plan import PlannedRound, SpeculationPlan, expected_of

AUTO, PLAIN = "auto", "ar"


@dataclasses.dataclass(frozen=True)
class PlanCell:
  """One setting at one batch size: its speed in every pass, and what the profiles predict."""

  model: str
  batch: int
  setting: str
  speeds: tuple[float, ...]  # tokens per second of the whole batch
  predicted: float | None  # None: no profile of such rounds
  choice: str = ""  # what auto decoded with; where it followed the text, at first
  follows: bool | None = None  # whether auto followed the text; None: a setting chosen by hand

  @property
  def speed(self) -> float:
    """The median."""
    return statistics.median(self.speeds)

  @property
  def error(self) -> float | None:
    """Predicted over measured speed, less 1."""
    return None if self.predicted is None else self.predicted / self.speed - 1

  def row(self) -> dict[str, Any]:
    """Returns the cell for a file of results."""
    return dict(
      model=self.model,
      batch=self.batch,
      setting=self.setting,
      tokens_per_second=self.speed,
      passes=list(self.speeds),
      predicted_tokens_per_second=self.predicted,
      error=self.error,
      choice=self.choice,
      follows=self.follows,
    )


@dataclasses.dataclass(frozen=True)
class PlanCells:
  """All settings of one model at one batch size."""

  cells: tuple[PlanCell, ...]

  def get(self, setting: str) -> PlanCell:
    """Returns the cell of a setting, AUTO and PLAIN among them."""
    return next(one for one in self.cells if one.setting == setting)

  @property
  def best(self) -> PlanCell:
    """The fastest of the settings chosen by hand, plain decoding among them."""
    return max((one for one in self.cells if one.setting != AUTO), key=lambda one: one.speed)

  def share(self, of: PlanCell) -> float:
    """Returns the speed of auto over that of a setting: the median over passes."""
    pairs = zip(self.get(AUTO).speeds, of.speeds, strict=True)
    return statistics.median(one / other for one, other in pairs)


def compare_settings(
  text: TextModel,
  config: Mapping[str, Any],
  settings: Mapping[str, Mapping[str, Any]],
  *,
  batch: int,
  texts: Mapping[str, Sequence[Prompt]],
  max_tokens: int,
  repeats: int,
  progress: Callable[[str], None] = lambda _: None,
) -> PlanCells:
  """Returns the speed of auto and of each setting, decoded in turn (`measure_speeds`).

  config: of auto, as `make_method` takes it; its profiles are measured first if they are not
  stored. settings: configs of methods by name; plain decoding is added. What is predicted of a
  setting is the speed of runs with its tree under the profiles of its drafter, if auto plans with
  that drafter (`FirstPlanner.whole_run`); of auto it is the speed of its choice in a program of its
  own, also where auto follows the text. Every batch begins with empty stores, also one that is
  decoded again.
  """
  if not wants_plan(config):
    raise ValueError("the config of auto makes no plan: name several drafters, or a tree of auto")
  plan = find_plan(config, text, batch)
  makes: dict[str, Make] = {AUTO: functools.partial(plan.made, own_stores=True), PLAIN: plain}
  for name, own in settings.items():
    makes[name] = lambda own=own: make_method(own, text, batch=batch)
  found = plan.plan
  speeds = measure_speeds(
    text, makes, batch=batch, texts=texts, max_tokens=max_tokens, repeats=repeats,
    progress=progress,
  )  # fmt: skip
  cells = [
    PlanCell(
      text.name,
      batch,
      name,
      tuple(values),
      _predicted(name, makes, settings, plan.replanner, found),
      described(found.choice) if name == AUTO else "",
      plan.follows if name == AUTO else None,
    )
    for name, values in speeds.items()
  ]
  return PlanCells(tuple(cells))


def predicted_round(
  method: Speculative, config: Mapping[str, Any], competitors: Sequence[Competitor]
) -> PlannedRound | None:
  """Returns what profiles expect of a setting's rounds; None without profiles of its drafter.

  config: of the method, as `make_method` takes it. A drafter that chooses its drafts alone counts
  as the chain of its height, since its rates were counted so. A tree that is larger or deeper than
  those measured has no prediction.
  """
  own = [one for one in competitors if one.drafter.partition(":")[0] == config["method"]]
  if not own:
    return None
  fields, shape = config["drafter"], method.drafter.fixed_shape
  # Of a drafter with several lengths, the profile of the shortest that is as long.
  own.sort(key=lambda one: one.latency.max_entries)
  if shape is not None:
    entries = shape.size
  else:
    entries = int(fields.get("size", 1 + fields.get("length", 0) * fields.get("branches", 1)))
  competitor = next((one for one in own if one.latency.max_entries >= entries), own[-1])
  tree = chain(min(method.drafter.height, competitor.max_height)) if shape is None else shape
  if entries > competitor.latency.max_entries or tree.height > competitor.max_height:
    return None
  kind = RoundKind.CHAIN if tree.is_chain else RoundKind.TREE
  one = PlannedRound(
    kind, competitor.drafter, tree, entries, tree.height, competitor.latency.batch, 1.0, 1.0
  )
  return expected_of(competitor, one)


def _predicted(
  name, makes, settings, planner: FirstPlanner, found: SpeculationPlan
) -> float | None:
  if name == AUTO:
    return found.choice.tokens_per_second
  if name == PLAIN:
    return found.plain.tokens_per_second
  competitors = planner.start_competitors(found.choice.batch)
  one = predicted_round(makes[name]()[0], settings[name], competitors)
  return None if one is None else planner.whole_run(competitors)(one).tokens_per_second


def median_error(cells: Sequence[PlanCell]) -> float | None:
  """Returns the median of the errors of prediction, without sign; None where none is known."""
  errors = [abs(one.error) for one in cells if one.error is not None]
  return statistics.median(errors) if errors else None
