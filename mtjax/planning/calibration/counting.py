"""What was accepted of drafts, counted in texts that plain decoding or the drafters write."""

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from mtjax.planning.acceptance import measure_acceptance
from mtjax.planning.calibration.prompts import grouped
from mtjax.planning.calibration.request import PlanRequest, new_tokens
from mtjax.planning.candidate import CountRounds, PlanCandidate, counter_of_text
from mtjax.planning.texts import Texts
from mtjax.rounds.history import TreeRecord
from mtjax.sampling.canonical import canonical_sampling
from mtjax.text import TextModel
from mtjax.tuning.online.watching import counts_of_lengths
from mtjax.tuning.profiles import AcceptanceCounts, AcceptanceProfile
from mtjax.tuning.whole_runs import measured_spread

Groups = Sequence[Sequence[list[int]]]  # batches of prompts


def counters_of(candidates: Sequence[PlanCandidate]) -> dict[str, CountRounds]:
  """Returns what counts rounds in texts (`counter_of_text`), of the candidates that have it."""
  counters = {one.name: counter_of_text(one) for one in candidates}
  return {name: count for name, count in counters.items() if count is not None}


def counted_texts(
  text: TextModel,
  prompts: Mapping[str, Sequence[Sequence[list[int]]]],
  counters: Mapping[str, CountRounds],
  request: PlanRequest,
  rows: int,
) -> Iterator[tuple[str, str, list[AcceptanceCounts]]]:
  """Yields a drafter, a domain, and the counts of texts that plain decoding writes.

  It writes `rows` of them at a time; the drafter meets them in batches of the request.
  """
  new, batch = new_tokens(request), request.batch
  for domain, groups in grouped(prompts, rows).items():
    own, outputs = list(itertools.chain(*groups)), []
    for number, rows_of in enumerate(groups):
      _, run = text.generate(rows_of, eos=(), max_tokens=new, sampling=request.sampling, key=number)
      outputs += run.tokens
    groups = [slice(at, at + batch) for at in range(0, len(own), batch)]
    for name, count in counters.items():
      yield name, domain, [one for its in groups for one in count(own[its], outputs[its])]


def with_spread(
  profile: AcceptanceProfile, rounds: Mapping[str, Iterable[int]], texts: Texts, new: int
) -> AcceptanceProfile:
  """Returns a profile with the spread of its texts (`measured_spread`).

  rounds: of each text of `new` tokens, by domain. texts: what they continue; shorter versions of a
  prompt are other rounds, but hardly other texts.
  """
  rates = [profile.rates(domain) for domain in rounds]
  different = [len(texts[domain]) for domain in rounds]
  each = [list(own) for own in rounds.values()]
  spread = measured_spread(each, rates, max(new - 1, 1), different=different)
  return dataclasses.replace(profile, spread=spread)


def ranks_of(
  text: TextModel, one: PlanCandidate, request: PlanRequest, groups: Groups
) -> list[AcceptanceCounts]:
  """Returns the counts of a draft model in batches of prompts.

  The texts of greedy requests say them for all trees. Otherwise each tree that is measured is
  decoded with, as none of them has all depths and ranks.
  """
  new, greedy = new_tokens(request), canonical_sampling(request.sampling) is None
  each, of = [], request.of(text, one)
  shapes = one.shapes[: 1 if greedy else None]
  for key, (shape, rows) in enumerate(itertools.product(shapes, groups)):
    found = measure_acceptance(
      text,
      one.speculative(shape).drafter,
      one.params,
      name=one.name,
      texts={"all rows": rows},
      height=min(one.arm.height, new - 1),
      breadth=max(one.arm.breadth, 1),
      max_tokens=new,
      sampling=request.sampling,
      verifier=one.arm.method.verifier,
      key=key,
      of=of,
    )
    each.append(found.counts())
  return each


def depths_of(
  text: TextModel, one: PlanCandidate, request: PlanRequest, groups: Groups
) -> list[AcceptanceCounts]:
  """Returns the counts of a drafter that chooses its drafts alone, by depth.

  Any child may be accepted, and rounds in which it found no draft count too.
  """
  each = []
  for key, rows in enumerate(groups):
    _, run = text.generate(
      rows, eos=(), method=one.arm.method, method_params=one.params, history=True,
      max_tokens=new_tokens(request), sampling=request.sampling, key=key,
    )  # fmt: skip
    whole, cut = np.zeros((2, one.arm.height + 1), np.int64)
    # The first record is that of the prefill.
    for tree in itertools.chain.from_iterable(record.rows for record in run.history[1:]):
      if isinstance(tree, TreeRecord):
        (whole if tree.bonus is not None else cut)[len(tree.path) - 1] += 1
    each.append(counts_of_lengths(whole, cut))
  return each
