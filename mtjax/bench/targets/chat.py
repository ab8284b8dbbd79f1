"""Targets for decoding without a draft model, on a pretrained model in chat format."""

import functools
from collections.abc import Callable, Sequence

from mtjax.bench.speculative import Results
from mtjax.bench.targets import AUTO, LOOKUP, PLAIN, SpeedTarget, chosen, ours
from mtjax.registry.configs import decode_config
from mtjax.registry.spelling import settings_of

_Figure = Callable[[Results, str], float | None]

DRAFT_FREE = ("lookup", "trie", "suffix", "recycling", "jacobi")


def chat_targets(results: Results) -> list[SpeedTarget]:
  """Returns all targets for one temperature; those of single sets are for greedy decoding.

  A ratio to transformers' lookup is to its fastest variant on each set, and the lowest set counts;
  the best method is one method for all sets. The automatic choice is judged by its worst set. What
  must hold over plain decoding on a set must hold for whole calls and for decoding alone.
  """
  free, autos = draft_free(results.systems), ours(results.systems, AUTO)
  lookups = [system for system in results.systems if system.startswith(LOOKUP)]
  alone = results.decoding_alone

  def over_plain(demand: str, minimum: float, systems: list[str], figure: _Figure, choose=max):
    both = {demand: results, f"{demand}, decoding alone": alone}
    return [
      chosen(name, minimum, systems, functools.partial(figure, part), choose)
      for name, part in both.items()
    ]

  def best_on(prompt_set, minimum):
    def figure(part, system):
      return part.speed_up(system, PLAIN, prompt_set)

    return over_plain(f"best method / plain, {prompt_set}", minimum, free, figure)

  def on_all(system):
    return results.mean_speed_up(system, PLAIN)

  def lowest(part, system):
    return _lowest(part, system, [PLAIN])

  def over_lookups(system):
    return _lowest(results, system, lookups)

  targets = [
    *over_plain("auto / plain, every set", 0.98, autos, lowest, min),
    chosen("best method / transformers' lookup, every set", 2.0, [*free, *autos], over_lookups),
  ]
  if results.temperature:
    return [*targets, _same_text(results)]
  return [
    *best_on("editing", 2.5),
    *best_on("summarising", 1.3),
    *best_on("toolcall", 1.3),
    chosen("best method / plain, mean of sets", 1.25, free, on_all),
    *targets,
    _same_text(results),
  ]


def draft_free(systems: Sequence[str]) -> list[str]:
  """Returns the systems that are ours and draft without a model: DRAFT_FREE, and "auto" of them."""
  kept = ours(systems, DRAFT_FREE)
  for system in ours(systems, AUTO):
    of = settings_of(system.split(":")[2:]).get("of", decode_config("auto").of)
    kept += [system] if of in DRAFT_FREE else []
  return kept


def with_equal_text(systems: Sequence[str], temperature: float) -> list[str]:
  """Returns the systems whose texts must equal those of plain decoding, with the same seeds.

  Sampled texts are the same only where drafts are compared with the target's own choice.
  """
  every = [name for name in systems if name.startswith("mtjax:") and "weights=" not in name]
  if temperature:
    every = [name for name in ours(every, (*DRAFT_FREE, *AUTO)) if "verifier=" not in name]
  return [name for name in every if name != PLAIN]


def differences(results: Results) -> list[str]:
  """Returns the first difference of each system whose texts must equal those of plain decoding."""
  found = []
  for system in with_equal_text(results.systems, results.temperature):
    pairs = ((results.get(system, one), results.get(PLAIN, one)) for one in results.sets)
    places = (ours.difference(plain) for ours, plain in pairs if ours and plain)
    found += [place for place in places if place][:1]
  return found


def _lowest(results, system, others) -> float | None:
  """Returns the lowest ratio over sets and other systems; None unless all of them ran."""
  ratios = [results.speed_up(system, other, one) for other in others for one in results.sets]
  return None if not ratios or None in ratios else min(ratios)


def _same_text(results) -> SpeedTarget:
  def share(system):
    pairs = ((results.get(system, one), results.get(PLAIN, one)) for one in results.sets)
    return min((one.same_text(plain) for one, plain in pairs if one and plain), default=None)

  systems = with_equal_text(results.systems, results.temperature)
  return chosen("share of equal text, all lossless methods", 1.0, systems, share, min)
