"""Loads of serving systems, replayed on simulated times: what a replanner does with them."""

import dataclasses

import numpy as np

from mtjax.tuning import Competitor, RoundKind, plan
from mtjax.tuning.plan import expected_of
from mtjax.tuning.profiles import (
  AcceptanceCounts,
  AcceptanceProfile,
  LatencyCurve,
  LatencyProfile,
  MonotoneFit,
  count_paths,
)
from tests.tuning.walks import walk


@dataclasses.dataclass(frozen=True)
class Load:
  """A part of a run: rounds of a batch, in texts of one domain."""

  rounds: int
  batch: int
  domain: str


def times(points, draft, *, steps=8):
  """Returns a latency profile: {batch: (plain seconds, seconds of the pass by entries)}."""
  curves = []
  for batch, (plain, verify) in points.items():
    sizes, seconds = zip(*sorted(verify.items()), strict=True)
    drafts = tuple(range(1, steps + 1))
    drafted = tuple(draft * d for d in drafts)
    curves.append(
      LatencyCurve(
        batch,
        0,
        MonotoneFit(sizes, seconds, seconds),
        MonotoneFit(drafts, drafted, drafted),
        0.0,
        plain,
      )  # fmt: skip
    )
  return LatencyProfile(dict(device="simulated", target="t", drafter="d"), tuple(curves))


def acceptance(domains, *, depth=8, rounds=5000):
  """Returns a profile of chains: the rate at every depth, or a list by depth, per domain."""
  out = {}
  for name, rate in domains.items():
    each = np.broadcast_to(np.asarray(rate, float), (depth,))
    nodes, tried, accepted = rounds, [], []
    for one in each:
      tried.append([nodes])
      nodes = int(round(nodes * one))
      accepted.append([nodes])
    out[name] = AcceptanceCounts(np.array(tried), np.array(accepted), rounds)
  return AcceptanceProfile(dict(target="t", drafter="d"), out)


@dataclasses.dataclass
class Run:
  """What a run did, round by round."""

  seconds: list[float]
  tokens: list[float]  # expected
  oracle: list[float]  # tokens per second of the best choice
  choices: list[str]

  @property
  def regret(self):
    best = np.dot(self.oracle, self.seconds)
    return 1 - sum(self.tokens) / best

  def efficiency(self, begin, end):
    """Returns the share of the best goodput that rounds begin, ..., end - 1 reached."""
    part = slice(begin, end)
    return sum(self.tokens[part]) / np.dot(self.oracle[part], self.seconds[part])


def truth(rates, latency, load):
  """Returns the competitor as it truly is under a load."""
  curve = dataclasses.replace(latency.at(load.batch), batch=load.batch)
  return Competitor("d", np.asarray(rates[load.domain], float).reshape(-1, 1), curve)


def replay(planner, rates, latency, loads, *, seed=0, noise=0.05, sizes=None, together=1):
  """Returns what a replanner does when acceptance is `rates` and times are `latency`, both true.

  together: the number of rounds that it is told of at once.
  """
  rng = np.random.default_rng(seed)
  out, state = Run([], [], [], []), planner.start(loads[0].batch)
  following = [*loads[1:], loads[-1]]
  for load, after in zip(loads, following, strict=True):
    competitor = truth(rates, latency, load)
    best = plan([competitor], sizes=sizes)
    seen, measured = AcceptanceCounts.none(1, 1), []
    for number in range(load.rounds):
      choice, counts = state.choice, None
      if choice.kind is RoundKind.PLAIN:
        expected, took = 1.0, competitor.latency.plain
      else:
        now = expected_of(competitor, choice)
        expected, took = now.expected_tokens, now.seconds
        path, count = walk(choice.topology, competitor.rates, load.batch, rng)
        counts = count_paths(choice.topology, path, count)
      out.seconds.append(took)
      out.tokens.append(load.batch * expected)
      out.oracle.append(best.choice.tokens_per_second)
      out.choices.append("plain" if choice.drafter is None else f"{choice.steps}")
      batch = load.batch if number + 1 < load.rounds else after.batch
      measured.append(took * float(np.exp(noise * rng.normal())))
      seen = seen if counts is None else seen + counts
      if len(measured) == together:
        state = planner.observe(
          state,
          seconds=float(np.mean(measured)),
          counts=seen if seen.rounds else None,
          batch=batch,
          rounds=together,
        )
        seen, measured = AcceptanceCounts.none(1, 1), []
  return out


def speeds(run, loads):
  """Returns the tokens per second of each load of a run."""
  out, begin = [], 0
  for load in loads:
    part = slice(begin, begin + load.rounds)
    out.append(sum(run.tokens[part]) / sum(run.seconds[part]))
    begin += load.rounds
  return out


def same_work(each):
  """Returns the tokens per second over loads of as many tokens each."""
  return len(each) / sum(1 / speed for speed in each)


def static(rates, latency, loads, steps):
  """Returns the tokens per second of one chain under each load; 0 steps: plain decoding."""
  out = []
  for load in loads:
    competitor = truth(rates, latency, load)
    if steps:
      each = 1 + float(np.cumprod(competitor.rates[:steps, 0]).sum())
      took = float(competitor.latency.round_seconds(steps + 1, steps))
    else:
      each, took = 1.0, competitor.latency.plain
    out.append(load.batch * each / took)
  return out
