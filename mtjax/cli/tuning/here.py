"""A plan for this machine: profiles are measured or read from the store, and the plan is tried."""

import dataclasses
import functools
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mtjax.cli.tuning.writing import CheckPlans
from mtjax.planning.auto import ONCE
from mtjax.planning.identity import device_kind, identity
from mtjax.planning.speeds import Make, measure_speeds, plain
from mtjax.planning.texts import name_of, same_length
from mtjax.pretrained import load
from mtjax.registry.auto import config_sampling, find_plan, plan_texts, planned_rows
from mtjax.registry.build import run_settings
from mtjax.registry.candidates import PLANNABLE
from mtjax.registry.configs import decode_config
from mtjax.report.plans import TunedPlan, identity_of_plan, label
from mtjax.sampling.canonical import sampling_name
from mtjax.text import TextModel
from mtjax.tuning.competitors import RoundKind
from mtjax.verify import get_verifier

Progress = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class PlannedDecoding:
  """What is decoded with a plan: the fields of the same names in configs of decoding.

  weights: of the target and of the draft model. verifier: None: that of the drafter's config.
  texts: to calibrate with, as "code=FILE"; none: the bundled ones. measure: "once", or "again" to
  replace what is stored, as `mtjax.planning.auto` says.
  """

  mesh: str = ""
  weights: str = "stored"
  temperature: float = 0.0
  top_p: float = 1.0
  verifier: str | None = None
  texts: tuple[str, ...] = ()
  measure: str = ONCE


def plan_config(
  drafters: Sequence[str],
  draft: str,
  context: int,
  seconds: float,
  decoding: PlannedDecoding = PlannedDecoding(),
) -> Any:
  """Returns the config of a plan of drafters.

  Raises ValueError for a drafter that cannot be planned, and for a verifier that does not exist.
  """
  unknown = [name for name in drafters if name not in PLANNABLE]
  if unknown or not drafters:
    wrong = repr(unknown[0]) if unknown else "nothing"
    raise ValueError(f"--drafters names {wrong}; there are: {', '.join(PLANNABLE)}")
  if len(drafters) > 1:
    config = decode_config("auto", of=",".join(drafters))
  else:
    config = decode_config(drafters[0])
    config.tree = "auto"
  if _needs_model(drafters):
    config.draft_model = draft
  if decoding.verifier is not None:
    get_verifier(decoding.verifier)
    config.verifier = decoding.verifier
  for name in ("mesh", "weights", "temperature", "top_p"):
    config[name] = getattr(decoding, name)
  for name in ("texts", "measure"):
    config.plan[name] = getattr(decoding, name)
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
  decoding: PlannedDecoding = PlannedDecoding(),
  check: CheckPlans = lambda _: None,
) -> list[TunedPlan]:
  """Returns the plan of each batch size on this machine, with the speed of its best rounds.

  Profiles come from the store of plans (`mtjax.planning.store`), or are measured and kept there.
  repeats: of the passes that measure speeds, which decode as `decoding` says; 0: none is measured.
  check: takes what each plan will belong to, before anything is measured. Raises ValueError for two
  batch sizes with one plan, and as `find_plan` does.
  """
  if context < 2 * max_tokens:
    raise ValueError(
      f"--context={context} tokens must hold a prompt and {max_tokens} new tokens that are no more "
      f"than half of it: give --tokens={context // 2}"
    )
  config = plan_config(drafters, draft, context, seconds, decoding)
  # What is wrong with files is said before models are loaded.
  config["plan"]["texts"] = plan_texts(config["plan"]["texts"])
  text = load(target, weights=decoding.weights, mesh=decoding.mesh)
  rows = _rows(batches, text)
  of = _of(text, config, drafters)
  check(
    [identity_of_plan(device_kind(text.params), text.name, context, number, of) for number in rows]
  )
  return [_tuned(text, config, of, number, max_tokens, repeats, progress) for number in rows]


def _tuned(text: TextModel, config, of, rows, max_tokens, repeats, progress) -> TunedPlan:
  found, context = find_plan(config, text, rows), config["plan"]["context"]
  tuned = TunedPlan(
    device_kind(text.params),
    text.name,
    context,
    found.plan,
    tuple(found.replanner.start_competitors(rows)),
    {one.drafter: one.acceptance for one in found.replanner.drafters},
    of=of,
  )
  if not repeats:
    return tuned
  texts = same_length(text, config["plan"]["texts"], context - max_tokens, rows=rows)
  systems: dict[str, Make] = {
    label(one): functools.partial(found.made_alone, one, own_stores=True)
    for one in tuned.best_rounds
  }
  systems.setdefault(RoundKind.PLAIN.value, plain)
  speeds = measure_speeds(
    text,
    systems,
    batch=rows,
    texts=texts,
    sampling=run_settings(config)["sampling"],
    max_tokens=max_tokens,
    repeats=repeats,
    progress=progress,
  )
  medians = {name: statistics.median(values) for name, values in speeds.items()}
  return dataclasses.replace(tuned, measured=medians)


def _rows(batches: Sequence[int], text: TextModel) -> list[int]:
  """Returns the rows of each plan, which speeds are compared at too (`planned_rows`)."""
  of: dict[int, int] = {}
  for batch in batches:
    rows = planned_rows(batch, text)
    if rows in of:
      raise ValueError(
        f"--batch={of[rows]},{batch} would be one plan twice, of {rows} rows: on this machine a "
        "plan is for a power of two of rows that the mesh divides; give one of them"
      )
    of[rows] = batch
  return list(of)


def _of(text: TextModel, config: Mapping[str, Any], drafters: Sequence[str]) -> dict[str, str]:
  """Returns what the plans depend on beside machine, target, context and batch."""
  known = identity(text, "")
  return dict(
    drafters=",".join(drafters),
    draft_model=config["draft_model"] if _needs_model(drafters) else "",
    weights=config["weights"],
    dtype=known["dtype"],
    mesh=known["mesh"],
    verifier=config["verifier"],
    sampling=sampling_name(config_sampling(config)),
    texts=name_of(config["plan"]["texts"]),
  )


def _needs_model(drafters: Sequence[str]) -> bool:
  return any(name.startswith("draft") for name in drafters)
