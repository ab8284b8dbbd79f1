"""A plan for a machine that is not here: models by their shapes, acceptance that is known."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from mtjax.checkpoints import read_config
from mtjax.cli.tuning.writing import CheckPlans
from mtjax.draft import ModelChain, PromptLookup
from mtjax.models import TransformerConfig
from mtjax.planning import measure_acceptance
from mtjax.pretrained import BUNDLED, NAMED, load_pretrained, model_path
from mtjax.registry.candidates import PLANNABLE
from mtjax.report.plans import TunedPlan, identity_of_plan
from mtjax.trees import chain
from mtjax.tuning import Siblings
from mtjax.tuning.elsewhere import DistantDrafter, distant_meshes, plan_elsewhere
from mtjax.tuning.profiles import AcceptanceProfile
from mtjax.tuning.roofline import ModelShape, parse_machine
from mtjax.tuning.roofline.published import PUBLISHED, published_shape
from mtjax.tuning.shapes.rated import Rates

HEIGHT = 8  # depths of acceptance that is measured, and of rates that are given
WITH_MODEL = ("draft", "draft_tree")
MEASURED = ("draft", "draft_tree", "lookup")

Progress = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Known:
  """The acceptance of a drafter: its rates, with the profile that they come from, if any."""

  rates: Rates
  profile: AcceptanceProfile | None = None


def shape_of(name: str, dtype: str) -> ModelShape:
  """Returns the shape of a published size ("7B"), or of a model by name, folder or GGUF file.

  dtype: of weights, caches and arithmetic on the machine. Raises ValueError for a name that is
  none of these.
  """
  if name in PUBLISHED:
    return published_shape(name, dtype=dtype)
  try:
    config = read_config(model_path(name))
  except FileNotFoundError:
    raise ValueError(
      f"there is no model {name!r}: give a published size ({', '.join(PUBLISHED)}), a bundled "
      f"model ({', '.join(BUNDLED)}), {', '.join(NAMED)}, a folder or a GGUF file"
    ) from None
  if not isinstance(config, TransformerConfig):
    raise ValueError(f"{name!r} is a {type(config).__name__}: a roofline is of causal transformers")
  return ModelShape.of_config(dataclasses.replace(config, dtype=dtype))


def read_acceptance(given: Sequence[str], domain: str) -> dict[str, Known]:
  """Returns what --acceptance gives, by the drafter's name.

  An entry is a file of an acceptance profile, NAME=FILE, or NAME=0.6,0.2,0.1: rates by rank, the
  same at every depth. Without a NAME it is that of the profile's drafter. Raises ValueError for a
  drafter that cannot be planned, for two of one name, and as `AcceptanceProfile` does.
  """
  out: dict[str, Known] = {}
  for entry in given:
    name, equals, value = entry.partition("=")
    if equals and (numbers := _numbers(value)) is not None:
      known = Known(np.tile(numbers, (HEIGHT, 1)))
    else:
      profile = AcceptanceProfile.load(value if equals else entry)
      name = name if equals else str(profile.of["drafter"]).split(" ")[0]
      known = _known(profile, domain)
    _check_plannable("--acceptance", [name])
    if name in out:
      raise ValueError(f"--acceptance has two entries of {name!r}: name one NAME=FILE")
    out[name] = known
  return out


def tuned_elsewhere(
  machine_name: str,
  target: str,
  draft: str,
  drafters: Sequence[str],
  given: Mapping[str, Known],
  *,
  batches: Sequence[int],
  context: int,
  max_entries: int,
  dtype: str,
  domain: str,
  progress: Progress,
  check: CheckPlans = lambda _: None,
) -> list[TunedPlan]:
  """Returns the plan of each batch size, from the roofline alone.

  Acceptance that is not given is measured here, where target and draft model can be loaded. check:
  takes what each plan will belong to, before anything is measured. Raises ValueError where
  acceptance cannot be measured, for a drafter that cannot be planned, for a profile of another
  target, where that is known (`_check_target`), and for models that the machine does not hold.
  """
  _check_plannable("--drafters", drafters)
  machine, shape = parse_machine(machine_name), shape_of(target, dtype)
  # What is given competes without being named.
  names = list(dict.fromkeys([*given, *drafters]))
  of = dict(
    drafters=",".join(names),
    draft_model=draft if set(names) & set(WITH_MODEL) else "",
    dtype=dtype,
    domain=domain,
  )
  where = f"{machine.name} (roofline)"
  check([identity_of_plan(where, target, context, batch, of) for batch in batches])
  notes = _check_target(target, given)
  lacking = [name for name in names if name not in given]
  if lacking:
    given = {**given, **_measured(lacking, target, draft, domain, progress)}
  distant = {
    name: DistantDrafter(
      name,
      given[name].rates,
      shape_of(draft, dtype) if name in WITH_MODEL else None,
      Siblings.IN_ORDER if name in WITH_MODEL else Siblings.ONE,
    )
    for name in names
  }
  profiles = {name: one.profile for name, one in given.items() if one.profile is not None}
  out = []
  for batch in batches:
    sizes = dict(batch=batch, context=context, max_entries=max_entries)
    found, competitors = plan_elsewhere(machine, shape, list(distant.values()), **sizes)
    own = list(notes)
    if machine.devices > 1:
      chosen = distant.get(str(found.choice.drafter))
      of_draft = None if chosen is None else chosen.shape
      meshes = distant_meshes(machine, shape, of_draft, **sizes)
      with_draft = "" if meshes.draft is None else f", and the draft model on {meshes.draft}"
      own.append(f"The target is on the mesh {meshes.target}{with_draft}.")
    out.append(
      TunedPlan(
        where, target, context, found, competitors, profiles, domain, of=of, notes=tuple(own)
      )
    )
  return out


def _check_plannable(flag: str, names: Sequence[str]) -> None:
  unknown = [name for name in names if name not in PLANNABLE]
  if unknown:
    raise ValueError(
      f"{flag} names {unknown[0]!r}, which cannot be planned; there are: {', '.join(PLANNABLE)}"
    )


def _check_target(target: str, given: Mapping[str, Known]) -> list[str]:
  """Returns a sentence per profile that says of which target it is.

  Raises ValueError for a profile of another target, where the target is a model with a name. What
  model a published size or a folder stands for is not known.
  """
  notes = []
  for name, known in given.items():
    if known.profile is None:
      continue
    measured = known.profile.of["target"]
    if target not in (*BUNDLED, *NAMED):
      notes.append(f"The acceptance of {name} was measured with the target {measured!r}.")
    elif measured.split(" ")[0] != target:
      raise ValueError(
        f"the profile of {name!r} in --acceptance is of the target {measured!r} and not of "
        f"--target={target}: give one of this target, or leave it out to measure it here"
      )
  return notes


def known_acceptance(
  rates: str | None, target: str, draft: str, progress: Progress = lambda _: None
) -> Known:
  """Returns rates by rank from text, or those of a draft model that are measured here.

  Raises ValueError for text that is no numbers.
  """
  if rates is None:
    return _measured(["draft"], target, draft, "all", progress)["draft"]
  numbers = _numbers(rates)
  if numbers is None:
    raise ValueError(f"--acceptance must be rates by rank, such as 0.6,0.2, got {rates!r}")
  return Known(np.tile(numbers, (HEIGHT, 1)))


def _measured(
  names: Sequence[str], target: str, draft: str, domain: str, progress: Progress
) -> dict[str, Known]:
  unknown = [name for name in names if name not in MEASURED]
  published = [name for name in (target, draft) if name in PUBLISHED]
  if unknown or published:
    why = f"{published[0]} is a size and no model" if published else f"it is none of {MEASURED}"
    raise ValueError(
      f"the acceptance of {(unknown or names)[0]!r} cannot be measured, as {why}: give "
      "--acceptance=NAME=FILE with a profile of it, or rates by rank, as --acceptance=draft=0.6,0.2"
    )
  text, out = load_pretrained(target), {}
  for name in names:
    if name in WITH_MODEL:
      other = load_pretrained(draft)
      found = measure_acceptance(
        text, ModelChain(other.model, HEIGHT), other.params, name=name, breadth=8,
        height=HEIGHT, progress=progress,
      )  # fmt: skip
    else:
      found = measure_acceptance(
        text, PromptLookup(length=HEIGHT), name=name, shape=chain(HEIGHT), progress=progress
      )
    out[name] = _known(found, domain)
  return out


def _known(profile: AcceptanceProfile, domain: str) -> Known:
  return Known(profile.falling_rates(domain), profile)


def _numbers(text: str) -> list[float] | None:
  try:
    return [float(part) for part in text.split(",")]
  except ValueError:
    return None
