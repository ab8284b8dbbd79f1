"""A plan for this machine: profiles are measured or read from the store, and the plan is tried."""

import dataclasses
import functools
import statistics
from collections.abc import Callable, Sequence
from typing import Any

from mtjax.planning.identity import device_kind
from mtjax.planning.speeds import Make, measure_speeds, plain
from mtjax.planning.texts import BUNDLED_TEXTS, same_length
from mtjax.pretrained import load
from mtjax.registry.auto import PLANNABLE, find_plan, planned_rows
from mtjax.registry.configs import decode_config
from mtjax.report.plans import TunedPlan, label
from mtjax.text import TextModel
from mtjax.tuning.competitors import RoundKind

Progress = Callable[[str], None]


def plan_config(drafters: Sequence[str], draft: str, context: int, seconds: float) -> Any:
  """Returns the config of a plan of drafters. Raises ValueError for one that cannot be planned."""
  unknown = [name for name in drafters if name not in PLANNABLE]
  if unknown or not drafters:
    wrong = repr(unknown[0]) if unknown else "nothing"
    raise ValueError(f"--drafters names {wrong}; there are: {', '.join(PLANNABLE)}")
  if len(drafters) > 1:
    config = decode_config("auto", of=",".join(drafters))
  else:
    config = decode_config(drafters[0])
    config.tree = "auto"
  if any(name.startswith("draft") for name in drafters):
    config.draft_model = draft
  config.plan.context, config.plan.seconds = context, seconds
  return config.to_dict()


def tuned_here(
  target: str,
  draft: str,
  drafters: Sequence[str],
  *,
  batches: Sequence[int],
  context: int,
  seconds: float,
  max_tokens: int,
  repeats: int,
  progress: Progress,
) -> list[TunedPlan]:
  """Returns the plan of each batch size on this machine, with the speed of its best rounds.

  Profiles come from the store of plans (`mtjax.planning.store`), or are measured and kept there.
  repeats: of the passes that measure speeds; 0: none is measured. Raises ValueError as
  `find_plan` does.
  """
  if context < 2 * max_tokens:
    raise ValueError(
      f"--context={context} tokens must hold a prompt and {max_tokens} new tokens that are no more "
      f"than half of it: give --tokens={context // 2}"
    )
  text, config = load(target), plan_config(drafters, draft, context, seconds)
  return [_tuned(text, config, batch, context, max_tokens, repeats, progress) for batch in batches]


def _tuned(text: TextModel, config, batch, context, max_tokens, repeats, progress) -> TunedPlan:
  # A plan is of a power of two of rows, and so are the speeds that it is compared with.
  rows, found = planned_rows(batch, text), find_plan(config, text, batch)
  tuned = TunedPlan(
    device_kind(),
    text.name,
    context,
    found.plan,
    tuple(found.replanner.start_competitors(rows)),
    {one.drafter: one.acceptance for one in found.replanner.drafters},
  )
  if not repeats:
    return tuned
  texts = same_length(text, BUNDLED_TEXTS, context - max_tokens, rows=rows)
  systems: dict[str, Make] = {
    label(one): functools.partial(found.made_alone, one, empty_stores=True)
    for one in tuned.best_rounds
  }
  systems.setdefault(RoundKind.PLAIN.value, plain)
  speeds = measure_speeds(
    text,
    systems,
    batch=rows,
    texts=texts,
    max_tokens=max_tokens,
    repeats=repeats,
    progress=progress,
  )
  medians = {name: statistics.median(values) for name, values in speeds.items()}
  return dataclasses.replace(tuned, measured=medians)
