"""The arithmetic of the benchmark with fake workers, and one real run."""

import contextlib
import json
from pathlib import Path

import jax
import pytest
from absl.flags import FLAGS
from absl.testing import flagsaver

from configs.decode import drafter
from experiments.bench import speculative as bench_speculative
from mtjax import checkpoints
from mtjax.bench import speculative as speculative_benchmark
from mtjax.bench import workers as benchmark
from mtjax.bench.speculative import PromptSet, Results, SystemResult, compare_sets
from mtjax.bench.systems import System, SystemText, WorkerJob, mtjax_method
from mtjax.bench.systems.worker import serve
from mtjax.bench.targets import AUTO, DRAFT_MODEL, RETRIEVAL, speed_targets
from mtjax.bench.workers import Worker, median_ratio, same_text
from mtjax.data.tokenizers import BpeTokenizer
from mtjax.models import Model, TransformerConfig, uniform_layers
from mtjax.registry.methods import METHODS
from mtjax.report.speed.tables import speed_tables

ROOT = Path(__file__).resolve().parents[2]


class Fake:
  """A fake worker: it answers `seconds[round]` for each prompt, and records its requests."""

  def __init__(self, seconds, *, forwards=4, fails=None, compiled=0.0):
    self.seconds, self.forwards, self.fails = seconds, forwards, fails
    self.compiled, self.requested = compiled, []

  def run(self, batches, job, *, before=None):
    index = len(self.requested) % len(self.seconds)
    self.requested.append((batches, job, before))
    if self.fails is not None and len(self.requested) > self.fails:
      return dict(error="OutOfMemory: no memory")
    answer = dict(
      seconds=self.seconds[index] + self.compiled,
      tokens=[[7] * job.tokens],
      forwards=self.forwards,
      counters=dict(compile_seconds=self.compiled),
    )
    return dict(batches=[dict(answer) for _ in batches])


@pytest.fixture
def compare(monkeypatch):
  """Returns compare_sets with fakes: a function of workers, sets and settings."""

  def run(workers, sets, *, missing=None, **settings):
    @contextlib.contextmanager
    def opened(*_):
      yield dict(workers), dict(missing or {})

    monkeypatch.setattr(speculative_benchmark, "open_workers", opened)
    settings = dict(tokens=8, temperatures=[0.0], threads=1, rounds=3) | settings
    return compare_sets("", {}, sets, **settings)

  return run


def test_a_ratio_is_the_median_of_ratios_of_the_same_round(compare):
  # Round 2 is disturbed for both: ratios 2, 2, 4. Medians of seconds would give 2 / 0.5 = 4.
  slow, fast = Fake([99, 1.0, 20.0, 2.0]), Fake([99, 0.5, 10.0, 0.5])
  sets = [PromptSet("a", [[1, 2], [3]])]
  results, failed = compare({"slow": slow, "fast": fast}, sets)
  found = Results(results, 0.0)
  assert found.speed_up("fast", "slow", "a") == 2.0 and not failed
  assert found.get("slow", "a").totals == [2.0, 40.0, 4.0], "the warm-up must not count"
  # 16 tokens of two prompts in 2, 40 and 4 seconds; 4 forwards a prompt.
  assert found.get("slow", "a").tokens_per_second == 4.0
  assert found.get("slow", "a").tokens_per_forward == 2.0
  assert median_ratio([1.0, 2.0], [3.0, 4.0]) == 2.5


def test_compilation_within_a_round_is_taken_off(compare):
  results, _ = compare({"a": Fake([1.0, 1.0, 1.0, 1.0], compiled=5.0)}, [PromptSet("s", [[1]])])
  assert results[0].totals == [1.0, 1.0, 1.0]


def test_every_round_has_its_seed_and_the_other_prompts_to_warm_with(compare):
  fake = Fake([1.0] * 3)
  sets = [PromptSet("a", [[1, 2]], [[5]]), PromptSet("b", [[3]], [[6], [7]])]
  results, _ = compare({"x": fake}, sets, temperatures=[0.0, 1.0], rounds=2)
  seen = [(b[0][0], job.temperature, job.seed, before) for b, job, before in fake.requested]
  assert seen[:3] == [([1, 2], 0.0, seed, [[[5]]]) for seed in (0, 1, 2)]
  assert seen[9:] == [([3], 1.0, seed, [[[6]], [[7]]]) for seed in (0, 1, 2)]
  assert [(r.prompt_set, r.temperature) for r in results] == [
    ("a", 0.0), ("b", 0.0), ("a", 1.0), ("b", 1.0)
  ]  # fmt: skip


def test_no_prompt_that_is_timed_may_be_in_the_warm_up():
  with pytest.raises(
    ValueError, match="toolcall: a prompt that is timed would be decoded in the w"
  ):
    PromptSet("toolcall", [[1, 2], [3]], [[4], [1, 2]])


def test_prompts_that_agree_in_what_is_kept_of_them_are_refused():
  texts = ["1 9 9"], ["2 9 9", "3 8 8"]

  def made(max_tokens):
    encode = lambda text: [int(word) for word in text.split()]  # noqa: E731
    return PromptSet.of_texts("set", texts, encode, max_tokens=max_tokens)

  assert made(3) == PromptSet("set", [[1, 9, 9]], [[2, 9, 9], [3, 8, 8]])
  with pytest.raises(ValueError, match="would be decoded in the warm-up"):
    made(2)


def test_a_system_that_fails_keeps_its_finished_sets_and_says_why(compare):
  sets = [PromptSet("a", [[1]]), PromptSet("b", [[2]])]
  workers, seen = {"x": Fake([1.0] * 4), "y": Fake([0.5] * 4, fails=5)}, []
  results, failed = compare(
    workers,
    sets,
    missing={"z": "not installed: zlm"},
    finished=lambda results, failed: seen.append((len(results), sorted(failed))),
  )
  assert seen == [(2, ["z"]), (3, ["y", "z"])], "what there is after each set"
  found = Results(results, 0.0)
  assert failed == {"y": "OutOfMemory: no memory", "z": "not installed: zlm"}
  assert found.get("y", "b") is None and found.speed_ups("y", "x") == {"a": 2.0}
  assert found.mean_speed_up("y", "x") is None, "a mean over fewer sets is another figure"
  table, *_ = speed_tables(results, "x")
  assert table.rows[1][:4] == ["y", "2.00x (2.00)", "-", "-"]


def test_progress_names_what_is_compiled_and_what_is_measured(compare):
  workers, told = {"x": Fake([1.0] * 2), "y": Fake([0.5] * 2)}, []
  compare(workers, [PromptSet("a", [[1]])], rounds=1, progress=told.append)
  assert told[-4:] == [
    "a, temperature 0, compiling x, 1 of 2",
    "a, temperature 0, compiling y, 2 of 2",
    "a, temperature 0, measuring x, 1 of 2: round 1 of 1",
    "a, temperature 0, measuring y, 2 of 2: round 1 of 1",
  ]


def test_same_text_counts_tokens_up_to_the_first_difference():
  assert same_text([[1, 2, 3, 4], [5, 6]], [[1, 2, 9, 4], [5, 6]]) == pytest.approx(4 / 6)
  assert same_text([[1, 2]], [[1]]) == 0.5


def made(speeds, temperature=0.0):
  """Returns results of systems with these speeds per set: one round, one prompt of 4 tokens."""
  return [
    SystemResult(name, where, temperature, [[1 / speed]], [[[1, 2, 3, 4]]], [[2]], [[None]])
    for name, sets in speeds.items()
    for where, speed in sets.items()
  ]


def verdicts(speeds):
  return [
    (t.measured and round(t.measured, 6), t.of, t.verdict)
    for t in speed_targets(Results(made(speeds), 0))
  ]


def test_speed_targets_are_judged_by_the_best_system_of_their_kind():
  speeds = {
    "mtjax:ar": dict(toolcall=1.0, pycode=1.0),
    "mtjax:lookup": dict(toolcall=1.9, pycode=1.2),
    "mtjax:trie:size=9": dict(toolcall=1.7, pycode=1.25),
    "mtjax:draft": dict(toolcall=1.1, pycode=1.2),
    "mtjax:best_first:size=8": dict(toolcall=1.0, pycode=1.4),
    "mtjax:auto": dict(toolcall=1.5, pycode=0.96),
    "mtjax:auto:of=draft": dict(toolcall=1.1, pycode=1.0),
    "transformers prompt lookup 3": dict(toolcall=0.4, pycode=0.4),
    "transformers prompt lookup 10": dict(toolcall=1.0, pycode=1.0),
    "transformers assisted": dict(toolcall=0.5, pycode=0.5),
    "transformers assisted 5": dict(toolcall=0.2, pycode=0.2),
  }
  assert verdicts(speeds) == [
    (1.9, "mtjax:lookup", "pass"),
    (1.25, "mtjax:trie:size=9", "fail"),
    (1.2, "mtjax:best_first:size=8", "pass"),
    (0.96, "mtjax:auto", "fail"),  # the worst choice on its worst set
    (1.55, "mtjax:lookup", "pass"),  # over their fastest variant
    (2.4, "mtjax:best_first:size=8", "fail"),
  ]


def test_speed_targets_name_existing_methods():
  assert set(METHODS).issuperset((*RETRIEVAL, *DRAFT_MODEL, *AUTO))


def test_a_speed_target_without_its_systems_or_sets_is_not_measured():
  assert verdicts({"mtjax:ar": dict(toolcall=1.0)}) == [(None, "", "not measured")] * 6
  speeds = {"mtjax:ar": dict(gsm8k=1.0), "mtjax:lookup": dict(gsm8k=2.0)}
  assert {verdict for *_, verdict in verdicts(speeds)} == {"not measured"}


def test_tables_are_markdown_that_a_readme_takes():
  speeds = {"mtjax:ar": dict(gsm8k=1.0), "mtjax:lookup": dict(gsm8k=1.5)}
  greedy, sampled, verdict = speed_tables(made(speeds) + made(speeds, 1.0), "mtjax:ar", "nobody")
  assert greedy.markdown().split("\n") == [
    "Speed over mtjax:ar, greedy, batch 1 (tokens per target forward):",
    "",
    "| system | gsm8k | mean | tokens/s | same text |",
    "|---|---|---|---|---|",
    "| mtjax:ar | 1.00x (2.00) | 1.00x | 4 | 100.0% |",
    "| mtjax:lookup | 1.50x (2.00) | 1.50x | 6 | 100.0% |",
  ]
  assert "temperature 1" in sampled.title and "same text" not in sampled.header
  assert verdict.header[0] == "floor" and len(verdict.rows) == 6


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """Returns a folder of a tiny model of random weights with the bundled tokenizer."""
  config = TransformerConfig(
    vocab_size=4096, dim=16, heads=2, kv_heads=1, head_dim=8, mlp_dim=16, layers=uniform_layers(1)
  )
  model = Model(config)
  path = tmp_path_factory.mktemp("model") / "tiny"
  checkpoints.save(path, model, model.init(jax.random.key(0)), tokenizer=BpeTokenizer.bundled())
  return path


def served(run, *requested):
  said = []
  serve(run, [json.dumps(a) for a in requested], lambda **fields: said.append(fields))
  return said


def requested(*batches, before=None, **job):
  return dict(batches=[[b] for b in batches], job=dict(tokens=4) | job, before=before)


class Scholar:
  """A system that remembers what it was called with."""

  def __init__(self):
    self.known = []

  def forget(self):
    self.known = []

  def __call__(self, prompts, job):
    if job.temperature < 0:
      raise ValueError("too cold")
    self.known.append((prompts[0][0], job.seed))
    return SystemText([list(prompts[0])], len(self.known), dict(known=list(self.known)))


def test_what_a_system_learned_goes_before_a_pass_and_other_prompts_come_first():
  scholar = Scholar()
  ready, *passes = served(
    scholar,
    requested([1], [2], seed=0, before=[[[8]], [[9]]]),
    requested([1], [2], seed=1, before=[[[8]], [[9]]]),
    requested([3], seed=1),
  )
  assert ready == dict(ready=True, remembers=True)
  known = [[batch["counters"]["known"] for batch in said["batches"]] for said in passes]
  others = [(8, 2**15), (9, 2**15 + 1)]
  assert known[0] == [others + [(1, 0)], others + [(1, 0), (2, 1)]]
  others = [(8, 2**16 + 2**15), (9, 2**16 + 2**15 + 1)]
  assert known[1][1] == others + [(1, 2**16), (2, 2**16 + 1)], "what it knew was timed before"
  assert len(known[2][0]) == 5, "without prompts to begin with nothing is forgotten"
  assert all(batch["seconds"] > 0 for said in passes for batch in said["batches"])


def test_a_worker_that_fails_once_says_why_and_goes_on():
  _, failed, good = served(Scholar(), requested([1], temperature=-1), requested([1]))
  assert failed == dict(error="ValueError: too cold") and good["batches"][0]["tokens"] == [[1]]
  plain = lambda prompts, job: SystemText([[5]])  # noqa: E731
  ready, said = served(plain, requested([1], before=[[[2]]]))
  assert not ready["remembers"] and said["batches"][0]["forwards"] is None


def test_a_process_that_ends_leaves_its_last_words(monkeypatch, tmp_path):
  dying = tmp_path / "python"
  dying.write_text("#!/bin/sh\necho 'out of' >&2\necho memory >&2\nexit 3\n")
  dying.chmod(0o755)
  monkeypatch.setattr(benchmark.sys, "executable", str(dying))
  worker = Worker("", 1, System("mtjax_ar", {}))
  assert worker.read() == dict(error="its process ended with 3: ...out of memory")
  assert "out of memory" in worker.run([[[1]]], WorkerJob(4))["error"]
  worker.close()


def test_a_trie_is_timed_with_what_other_prompts_taught_it_alone(folder):
  config = drafter.get_config("trie").to_dict() | dict(model=str(folder))
  run = mtjax_method.open_system(str(folder), 1, config=config)
  one, other, job = [[5, 6, 7]], [[900, 3, 44]], WorkerJob(24)
  first = run(one, job).forwards
  assert run(one, job).forwards < first, "it should have learned the text"
  run.forget()
  run(other, job)
  run.forget()
  assert run(one, job).forwards == first


def bench(*arguments):
  with flagsaver.flagsaver():
    FLAGS(["bench_speculative", *arguments])
    bench_speculative.run()


def test_the_benchmark_runs_from_prompts_to_tables(folder, tmp_path, capfd):
  (tmp_path / "gsm8k").mkdir()
  questions = "".join(json.dumps(dict(question=f"{i} apples?")) + "\n" for i in range(4))
  (tmp_path / "gsm8k" / "test.jsonl").write_text(questions)
  bench(
    f"--data={tmp_path}", "--sets=gsm8k", "--prompts=2", "--warm=2", "--tokens=6", "--rounds=2",
    f"--target={folder}", f"--draft={folder}", "--temperatures=0", "--markdown",
    "--systems=mtjax:ar,mtjax:lookup:length=3", f"--output={tmp_path / 'run.json'}",
  )  # fmt: skip
  shown = capfd.readouterr().out
  assert "| mtjax:ar | 1.00x (1.00) | 1.00x |" in shown and "| floor |" in shown
  assert shown.count("Decoding alone: speed over mtjax:ar after the first tokens, greedy") == 1
  saved = json.loads((tmp_path / "run.json").read_text())
  assert saved["settings"]["tokens"] == 6 and saved["failed"] == {}
  plain, lookup = saved["results"]
  assert plain["tokens"] == lookup["tokens"] and len(plain["tokens"]) == 2
  assert plain["first_tokens"] == lookup["first_tokens"] == [[1, 1], [1, 1]]
  assert {len(tokens) for prompts in plain["tokens"] for tokens in prompts} == {6}
  assert lookup["counters"][0][0]["drafted_at_depth"]


@pytest.mark.parametrize(
  ("flags", "message"),
  [
    ([], "--data is missing"),
    (["--data=nowhere", "--sets=gsm8k,mbpp"], "unknown prompt sets ['mbpp']; there is: specbench"),
    (["--data=nowhere", "--systems=mtjax:magic"], "method 'magic' is not one of: ar, "),
    (["--data=nowhere", "--systems=vllm"], "unknown systems ['vllm']; there are: mtjax:ar, "),
    (["--data=nowhere", "--sets=gsm8k"], "no .jsonl or .jsonl.gz file in 'nowhere/gsm8k'"),
  ],
)
def test_a_mistake_is_said_before_anything_is_loaded(flags, message, monkeypatch):
  monkeypatch.setattr(bench_speculative, "export", lambda *_: pytest.fail("too late"))
  with pytest.raises((ValueError, OSError)) as raised:
    bench(*flags)
  assert message in str(raised.value)


def test_a_reference_that_cannot_run_is_refused_before_anything_is_timed(tmp_path):
  told = []
  arguments = dict(tokens=1, threads=1, rounds=1, progress=told.append)
  with pytest.raises(ValueError, match=r"'other' is not among the systems: mtjax int8"):
    benchmark.compare(str(tmp_path), ["mtjax int8"], [[1]], reference="other", **arguments)
  # Its process answers that the folder holds no model.
  with pytest.raises(ValueError, match="'mtjax int8' did not run: .*config.json"):
    benchmark.compare(str(tmp_path), ["mtjax int8"], [[1]], reference="mtjax int8", **arguments)
  assert told == ["starting mtjax int8"]
