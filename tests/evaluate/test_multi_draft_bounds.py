"""The table of multi-draft bounds: recorded pairs, averages, and the page."""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtjax import checkpoints
from mtjax import frontier as F
from mtjax.data.tokenizers import BpeTokenizer
from mtjax.evaluate.multi_draft.acceptance import acceptance
from mtjax.evaluate.multi_draft.bounds import as_json, measure
from mtjax.evaluate.multi_draft.recorded_pairs import RecordedPairs, contexts, record
from mtjax.models import Model, TransformerConfig, uniform_layers
from mtjax.report.multi_draft.page import page, read
from mtjax.text import TextModel
from mtjax.types import DraftScheme
from mtjax.verify import optimal_acceptance
from tests.compiled import forward
from tests.forked import launch

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "results" / "multi_draft_bounds.json"
SETTINGS = dict(target="a", draft="b", texts=["x=file:x"], positions=3, context=8)


def small_model(vocab, seed):
  model = Model(TransformerConfig(vocab, 16, 2, 1, 8, 16, uniform_layers(1), max_position=64))
  # Weights of some size: those of `init` predict nearly the same everywhere.
  params = jax.tree.map(lambda x: 4 * x, model.init(jax.random.key(seed)))
  return model, params


@pytest.fixture(scope="module")
def pairs():
  rng = np.random.default_rng(0)
  logits = rng.normal(size=(2, 6, 9)).astype(np.float32)
  return RecordedPairs(SETTINGS, ["one"] * 3 + ["two"] * 3, logits[0], logits.sum(axis=0))


@pytest.fixture(scope="module")
def results(pairs):
  seen = []
  measured = measure(pairs, temperatures=[0.5, 1.0], drafts=[1, 2, 3], finished=seen.append)
  assert [len(part["rows"]) for part in seen] == [39, 78] and seen[1] == measured
  return dict(command="python -m experiments.multi_draft_bounds --results=x.json", **measured)


def test_the_page_in_docs_is_made_of_the_committed_results():
  """If not: python -m experiments.multi_draft_bounds --results=results/... --page=docs/..."""
  committed = read(RESULTS)
  assert (ROOT / "docs" / "multi_draft_bounds.md").read_text(encoding="utf-8") == page(committed)
  assert min(committed["positions"].values()) >= 200


def test_committed_results_hold_the_relations_that_are_proved():
  rows = read(RESULTS)["rows"]
  bounds = {(r["text"], r["temperature"], r["drafts"], r["scheme"]): r["bound"][0] for r in rows}
  for row in rows:
    where = row["text"], row["temperature"], row["drafts"]
    for rule, cell in row["rules"].items():
      assert cell["gap"][0] >= -5 * cell["sampling_error"] - 2e-6, (where, rule)
      assert cell["gap"][0] == pytest.approx(row["bound"][0] - cell["acceptance"][0], abs=2e-6)
      if rule in ("greedy_plus_one", "spechub", "delta"):
        assert abs(cell["gap"][0]) < 2e-6, (where, rule)
    assert bounds[*where, "with-replacement"] <= bounds[*where, "without-replacement"] + 2e-6


def test_rows_are_means_over_the_positions_of_a_text(pairs, results):
  rows = {(r["text"], r["temperature"], r["drafts"], r["scheme"]): r for r in results["rows"]}
  assert results["positions"] == {"one": 3, "two": 3} and results["vocabulary"] == 9
  p, q = pairs.probs(0.5)
  accepted = acceptance(p, q, [3]).mean
  scheme = DraftScheme.WITH_REPLACEMENT
  best = np.array([optimal_acceptance(*pair, 3, scheme) for pair in zip(p, q, strict=True)])
  for text, part in (("all", slice(6)), ("one", slice(3)), ("two", slice(3, 6))):
    row = rows[text, 0.5, 3, "with-replacement"]
    for values, (mean, error) in (
      (best, row["bound"]),
      (accepted["kseq"][:, 0], row["rules"]["kseq"]["acceptance"]),
      (best - accepted["kseq"][:, 0], row["rules"]["kseq"]["gap"]),
      (best - accepted["kseq"][:, 0], row["lead"]["kseq"]),
    ):
      assert mean == pytest.approx(values[part].mean(), abs=1e-6)
      spread = values[part].std(ddof=1) / len(values[part]) ** 0.5
      assert error == pytest.approx(spread, abs=1e-6)
  exact, sampled = (rows["all", 0.5, n, "without-replacement"]["rules"] for n in (2, 3))
  assert exact["rrs_without"]["sampling_error"] == 0 < sampled["rrs_without"]["sampling_error"]


def test_a_page_bolds_the_best_verifier_and_reads_what_was_written(results, tmp_path):
  (tmp_path / "x.json").write_text(as_json(results))
  assert page(read(tmp_path / "x.json")) == page(results)
  main = [line for line in page(results).split("\n") if line.startswith("| 3 | 0.5 |")]
  cells = main[0].split(" | ")[2:]
  rows = {
    r["scheme"]: r
    for r in results["rows"]
    if (r["text"], r["temperature"], r["drafts"]) == ("all", 0.5, 3)
  }
  shares = [cell["acceptance"][0] for r in rows.values() for cell in r["rules"].values()]
  bold = [cell for cell in cells if cell.startswith("**")]
  assert bold and all(cell.startswith(f"**{max(shares):.3f}**") for cell in bold)
  assert cells[0] == f"{rows['with-replacement']['bound'][0]:.3f}"


def test_contexts_are_spread_over_the_documents_and_end_before_their_token():
  documents = [np.arange(10, 14), np.arange(20, 22), np.arange(30, 30)]
  assert contexts(documents, 6, begin=1, length=3) == [
    [1], [1, 10], [1, 10, 11], [10, 11, 12], [1], [1, 20]
  ]  # fmt: skip
  assert contexts(documents, 3, begin=1, length=3) == [[1], [1, 10, 11], [1]]
  assert contexts(documents, 9, begin=1, length=9)[3] == [1, 10, 11, 12]
  assert contexts([], 2, begin=1, length=3) == []


def test_recorded_logits_are_those_of_the_models_after_each_context():
  tokenizer = BpeTokenizer.bundled()
  texts = [TextModel(*small_model(4096, seed), tokenizer) for seed in (0, 1)]
  documents = {"one": [(np.arange(100, 112), 12)], "two": [(np.arange(50, 80), 30)]}
  recorded = record(*texts, documents, positions=5, context=6, settings=SETTINGS)
  assert recorded.text == ["one"] * 5 + ["two"] * 5 and recorded.target.shape == (10, 4096)
  assert np.abs(recorded.target - recorded.draft).max() > 0.1
  place = 3  # token 3 * 12 // 5 = 7 of the first document: tokens 1 to 6 are its context
  for text, logits in zip(texts, (recorded.target, recorded.draft), strict=True):
    tokens = F.causal(jnp.arange(101, 107)[None])
    expected = forward(text.model, text.params, tokens).logits[0, -1]
    np.testing.assert_allclose(logits[place], expected, atol=1e-5)
  with pytest.raises(ValueError, match="one has 12 tokens, fewer than positions, which is 13"):
    record(*texts, documents, positions=13, context=6, settings=SETTINGS)
  with pytest.raises(
    ValueError, match="context must be from 1 to 64 tokens for these models, got 65"
  ):
    record(*texts, documents, positions=1, context=65, settings=SETTINGS)


def test_recorded_pairs_are_read_back_only_for_the_same_settings(pairs, tmp_path):
  pairs.save(tmp_path / "pairs.npz")
  again = RecordedPairs.load(tmp_path / "pairs.npz", SETTINGS)
  assert again.text == pairs.text and again.settings == SETTINGS
  np.testing.assert_array_equal(again.target, pairs.target)
  np.testing.assert_array_equal(again.draft, pairs.draft)
  with pytest.raises(ValueError, match="pairs.npz' was recorded with another draft: 'b'; name"):
    RecordedPairs.load(tmp_path / "pairs.npz", SETTINGS | dict(draft="c"))
  (tmp_path / "other.npz").write_text("no archive")
  with pytest.raises(ValueError, match="other.npz' holds no recorded pairs"):
    RecordedPairs.load(tmp_path / "other.npz", SETTINGS)


def test_refusals(pairs, results, tmp_path):
  for temperatures, drafts, message in (
    ([], [1], "temperatures must be above 0, got "),
    ([0.0], [1], r"temperatures must be above 0, got \[0.0\]"),
    ([1.0], [0, 1], r"numbers of drafts must be at least 1, got \[0, 1\]"),
  ):
    with pytest.raises(ValueError, match=message):
      measure(pairs, temperatures=temperatures, drafts=drafts)
  with pytest.raises(ValueError, match="'all' means all texts together"):
    measure(dataclasses.replace(pairs, text=["all"] * 6), temperatures=[1.0], drafts=[1])
  with pytest.raises(ValueError, match="results of two or more at a position are needed"):
    page(results | dict(rows=[row for row in results["rows"] if row["drafts"] == 1]))
  (tmp_path / "x.json").write_text("[]")
  with pytest.raises(ValueError, match="x.json' holds no results of multi_draft_bounds"):
    read(tmp_path / "x.json")


def test_the_launcher_records_measures_and_makes_the_page(tmp_path):
  tokenizer = BpeTokenizer.bundled()
  for name, seed in (("target", 0), ("draft", 1)):
    checkpoints.save(tmp_path / name, *small_model(4096, seed), tokenizer=tokenizer)
  (tmp_path / "a.txt").write_text("A text of some words. " * 8)
  measured, page_file = tmp_path / "x.json", tmp_path / "x.md"
  command = [
    "experiments.multi_draft_bounds", f"--target={tmp_path}/target", f"--draft={tmp_path}/draft",
    f"--text=words=file:{tmp_path}/a.txt", "--positions=6", "--context=8", "--drafts=1,2",
    f"--record={tmp_path}/pairs.npz", f"--results={measured}",
  ]  # fmt: skip
  picture = f"--picture={tmp_path}/x.png"
  code, _, errors = launch(*command, "--temperatures=0.5,1", f"--page={page_file}", picture)
  assert code == 0, errors
  results = json.loads(measured.read_text())
  assert results["positions"] == {"words": 6} and len(results["rows"]) == 2 * 2 * (4 + 5)
  assert "--positions=6 --context=8" in results["command"]
  assert page_file.read_text() == page(results)
  assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")
  # A second run reads the logits: the models may be gone.
  for name in ("target", "draft"):
    (tmp_path / name / "model.safetensors").unlink()
  code, _, errors = launch(*command, "--temperatures=1")
  assert code == 0, errors
  again = json.loads(measured.read_text())["rows"]
  assert again == [row for row in results["rows"] if row["temperature"] == 1]
  code, _, errors = launch(*command, "--temperatures=1", "--positions=7")
  assert code == 2 and "was recorded with another positions: 6; name another file" in errors
  command = ("experiments.multi_draft_bounds", f"--results={measured}", "--drafts=2")
  code, _, errors = launch(*command)
  assert code == 2 and "without --text, --drafts would do nothing" in errors
