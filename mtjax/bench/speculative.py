"""Several tokens per forward against one: prompt sets, batch 1, one process per system.

Each prompt of a set is decoded on its own, one after the other; a round is a pass over the set by
every system in turn. Passes before the first round are not timed: they compile. `compare_sets` says
what systems that learn from text (a store of n-grams) know when a pass begins.

The time of a call contains the forward pass over the prompt. Each system also says, within the same
call, when its first tokens were there (`SystemText.first_seconds`): nothing runs twice, and nothing
is learned twice. Decoding alone is what comes after them (`SystemResult.after_first`).
"""

import dataclasses
import itertools
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mtjax.bench.systems import System, WorkerJob
from mtjax.bench.workers import interleave, median_ratio, open_workers, same_text

Encode = Callable[[str], Sequence[int]]


@dataclasses.dataclass(frozen=True)
class PromptSet:
  """Token ids of timed prompts, and of other prompts to warm systems that learn from text."""

  name: str
  prompts: Sequence[Sequence[int]]
  others: Sequence[Sequence[int]] = ()

  def __post_init__(self):
    timed = set(map(tuple, self.prompts))
    if any(tuple(prompt) in timed for prompt in self.others):
      raise ValueError(f"{self.name}: a prompt that is timed would be decoded in the warm-up too")

  @classmethod
  def of_texts(
    cls, name: str, texts: tuple[Sequence[str], Sequence[str]], encode: Encode, *, max_tokens: int
  ) -> "PromptSet":
    """Makes a set of `split_prompts`'s two lists, each text cut to its last `max_tokens` tokens."""
    timed, others = ([encode(text)[-max_tokens:] for text in part] for part in texts)
    return cls(name, timed, others)


@dataclasses.dataclass(frozen=True)
class SystemResult:
  """One system on one set at one temperature: R timed rounds over P prompts."""

  system: str
  prompt_set: str
  temperature: float
  seconds: list[list[float]]  # [R][P], without compilation
  tokens: list[list[list[int]]]  # [R][P]: new tokens
  forwards: list[list[int]]  # [R][P]: forward passes of the target, including the prompt's
  counters: list[list[dict[str, Any] | None]]  # [R][P]: other counters of the system
  # [R][P]: seconds until the first tokens, and how many these are; None: the system does not say.
  first_seconds: list[list[float | None]] | None = None
  first_tokens: list[list[int | None]] | None = None

  @property
  def totals(self) -> list[float]:
    """Returns the seconds of each round."""
    return [sum(prompts) for prompts in self.seconds]

  @property
  def first_totals(self) -> list[float]:
    """Returns the seconds of each round until first tokens, where these are known."""
    return [sum(seconds for seconds in prompts if seconds) for prompts in self.first_seconds or ()]

  @property
  def emitted(self) -> list[int]:
    """Returns the number of tokens of each round."""
    return [sum(map(len, prompts)) for prompts in self.tokens]

  @property
  def seconds_per_token(self) -> list[float]:
    """Returns one figure per round: sampled texts that end may differ in length."""
    return [time / count for time, count in zip(self.totals, self.emitted, strict=True)]

  @property
  def tokens_per_second(self) -> float:
    """Returns the median over rounds."""
    return statistics.median(1 / seconds for seconds in self.seconds_per_token)

  @property
  def tokens_per_forward(self) -> float:
    """Returns tokens per forward of all rounds together; 1 for plain decoding."""
    return sum(self.emitted) / sum(n for prompts in self.forwards for n in prompts)

  def after_first(self) -> "SystemResult | None":
    """Returns decoding alone: tokens after the first ones, in the time and the forwards after them.

    The first tokens are those of the forward pass over the prompt. None where the system does not
    say when they were there, and where nothing comes after them in one of the rounds.
    """
    seconds, skipped = self.first_seconds, self.first_tokens
    if seconds is None or skipped is None or any(None in one for one in (*seconds, *skipped)):
      return None
    tokens = _each(lambda tokens, n: tokens[n:], self.tokens, skipped)
    if not all(any(prompts) for prompts in tokens):
      return None
    return dataclasses.replace(
      self,
      seconds=_each(lambda whole, first: whole - first, self.seconds, seconds),
      tokens=tokens,
      forwards=_each(lambda n: n - 1, self.forwards),
      first_seconds=None,
      first_tokens=None,
    )

  def speed_up(self, reference: "SystemResult") -> float:
    """Returns the median over rounds of the ratio in the same round."""
    return median_ratio(self.seconds_per_token, reference.seconds_per_token)

  def same_text(self, reference: "SystemResult") -> float:
    """Returns the share of the first round's tokens before each prompt's first difference."""
    return same_text(reference.tokens[0], self.tokens[0])

  def difference(self, reference: "SystemResult") -> str | None:
    """Returns where the text first differs from the reference's; None if all rounds are equal."""
    for number, rounds in enumerate(zip(self.tokens, reference.tokens, strict=True), 1):
      for prompt, (ours, theirs) in enumerate(zip(*rounds, strict=True), 1):
        if ours != theirs:
          pairs = enumerate(itertools.zip_longest(ours, theirs), 1)
          place, (one, other) = next(x for x in pairs if x[1][0] != x[1][1])
          return (
            f"{self.system}, {self.prompt_set}, temperature {self.temperature:g}, round {number}, "
            f"prompt {prompt}: token {place} is {one}, and {other} of {reference.system}"
          )
    return None


def _each(function: Callable, *values: Sequence[Sequence[Any]]) -> list[list[Any]]:
  """Returns [R][P] of the function of values [R][P]."""
  rounds = zip(*values, strict=True)
  return [[function(*prompts) for prompts in zip(*one, strict=True)] for one in rounds]


def compare_sets(
  folder: str,
  systems: Mapping[str, System],
  sets: Sequence[PromptSet],
  *,
  tokens: int,
  temperatures: Sequence[float],
  threads: int,
  rounds: int,
  ends: Sequence[int] = (),
  progress: Callable[[str], None] = lambda text: None,
  finished: Callable[[list[SystemResult], dict[str, str]], None] = lambda *results: None,
) -> tuple[list[SystemResult], dict[str, str]]:
  """Returns the results of every system that runs, and why other results are missing.

  All systems emit exactly `tokens` tokens per prompt, or fewer where one is in `ends`. Sampled
  rounds differ in their seed. A system that remembers forgets everything before each pass and then
  decodes the set's `others`, untimed, at the same temperature: a pass begins with knowledge of
  these, and with nothing of the prompts that follow, of the untimed pass or of earlier rounds, sets
  and temperatures. Within a pass it learns from prompt to prompt, as it does in use.

  `finished` gets the results so far after each set, so that a stopped run of hours is not lost.
  """
  results = []
  with open_workers(folder, systems, threads, progress) as (workers, failed):
    for temperature in temperatures:
      for prompt_set in sets:
        ask = _pass_over(prompt_set, WorkerJob(tokens, temperature, ends=ends))
        label = f"{prompt_set.name}, temperature {temperature:g}"
        answers = interleave(
          workers, failed, rounds, ask, lambda text, label=label: progress(f"{label}, {text}")
        )
        results += [
          _result(name, prompt_set.name, temperature, said[1:]) for name, said in answers.items()
        ]
        finished(results, failed)
  return results, failed


def _pass_over(prompt_set: PromptSet, job: WorkerJob):
  batches = [[list(prompt)] for prompt in prompt_set.prompts]
  before = [[list(prompt)] for prompt in prompt_set.others]

  def ask(worker, index):
    return worker.run(batches, dataclasses.replace(job, seed=index), before=before)

  return ask


def _result(
  system: str, prompt_set: str, temperature: float, said: list[list[dict]]
) -> SystemResult:
  def each(value):
    return _each(value, said)

  def seconds(answer):
    # Nothing should compile in a timed round; if something does, its time is not the system's.
    return answer["seconds"] - (answer["counters"] or {}).get("compile_seconds", 0.0)

  return SystemResult(
    system,
    prompt_set,
    temperature,
    seconds=each(seconds),
    tokens=each(lambda answer: answer["tokens"][0]),
    forwards=each(lambda answer: answer["forwards"]),
    counters=each(lambda answer: answer["counters"]),
    first_seconds=each(lambda answer: answer.get("first_seconds")),
    first_tokens=each(lambda answer: answer.get("first_tokens")),
  )


class Results:
  """Results of one temperature, by system and set.

  sets: those that figures over all sets are of; None: those of the results, in their order.
  """

  def __init__(
    self,
    results: Sequence[SystemResult],
    temperature: float,
    *,
    sets: Sequence[str] | None = None,
  ):
    chosen = [result for result in results if result.temperature == temperature]
    self.temperature = temperature
    ran = dict.fromkeys(result.prompt_set for result in chosen)
    self.sets = list(ran if sets is None else sets)
    self.systems = list(dict.fromkeys(result.system for result in chosen))
    self._results = {(result.system, result.prompt_set): result for result in chosen}

  @property
  def decoding_alone(self) -> "Results":
    """Returns what comes after the first tokens, where it is known, on the same sets."""
    later = [result.after_first() for result in self._results.values()]
    known = [result for result in later if result is not None]
    return Results(known, self.temperature, sets=self.sets)

  def get(self, system: str, prompt_set: str) -> SystemResult | None:
    return self._results.get((system, prompt_set))

  def speed_up(self, system: str, reference: str, prompt_set: str) -> float | None:
    """Returns the speed-up on one set; None where one of the two did not run."""
    one, other = self.get(system, prompt_set), self.get(reference, prompt_set)
    return one.speed_up(other) if one and other else None

  def speed_ups(self, system: str, reference: str) -> dict[str, float]:
    """Returns the speed-ups by set, for the sets where both ran."""
    every = {name: self.speed_up(system, reference, name) for name in self.sets}
    return {name: value for name, value in every.items() if value is not None}

  def mean_speed_up(self, system: str, reference: str) -> float | None:
    """Returns the arithmetic mean over the sets; None unless both ran on all of them."""
    ratios = self.speed_ups(system, reference)
    return statistics.mean(ratios.values()) if ratios and len(ratios) == len(self.sets) else None
