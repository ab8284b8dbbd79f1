"""Distances of policies: the committed ones are what the code measures, and the launcher writes."""

import json

import pytest

from mtjax.diffusion import order, revise, transfer
from mtjax.evaluate.denoising import distances
from mtjax.report import results
from mtjax.types import Exactness
from tests.forked import launch
from tests.source import ROOT

RESULTS = ROOT / "results/diffusion_distances.json"
# Of every kind of random numbers: none, permutations, coins, rankings with noise.
NAMES = (
  "left to right, one per pass",
  "entropy, 2 per pass",
  "random order, 2 per pass",
  "ancestral, 4 passes",
  "Dream, 2 passes, alg_temp 0.2",
)


def test_the_committed_distances_are_those_of_the_code():
  rows = {row["policy"]: row for row in results.read(RESULTS)["rows"]}
  assert list(rows) == list(distances.POLICIES), "run experiments.diffusion.distances again"
  for row in distances.measure({name: distances.POLICIES[name] for name in NAMES}):
    was = rows[row["policy"]]
    assert row["total_variation"] == pytest.approx(was["total_variation"], abs=1e-9)
    assert row["passes"] == pytest.approx(was["passes"]) and row["exactness"] == was["exactness"]
    assert row["reason"] == was["reason"]


def test_every_rule_is_measured():
  measured = {type(x) for one in distances.POLICIES.values() for x in vars(one.policy).values()}
  rules = {getattr(family, name) for family in (order, revise, transfer) for name in family.__all__}
  # It needs tokens that delete and insert, and the two tokens of these toys are text.
  assert rules - {revise.Levenshtein} == measured


def test_what_claims_to_be_exact_has_no_distance_and_all_others_say_why():
  rows = results.read(RESULTS)["rows"]
  for row in rows:
    if row["exactness"] == Exactness.LOSSLESS.value:
      assert row["total_variation"]["agree"] < 1e-12 and not row["reason"]
    else:
      assert row["reason"] and max(row["total_variation"].values()) > 0.01


def test_the_launcher_writes_rows_and_a_table(tmp_path):
  path, name = tmp_path / "x.json", "first hitting"
  command = ("experiments.diffusion.distances", f"--results={path}")
  code, shown, errors = launch(*command, f"--policy={name}")
  assert code == 0 and name in shown, errors
  record = json.loads(path.read_text())
  assert [row["policy"] for row in record["rows"]] == [name]
  assert results.tables(results.read(path))[0].rows[0] == [name, "lossless", "4.00", "0", "0"]
  code, _, errors = launch(*command, "--policy=first")
  assert code == 2 and "there is no policy 'first'; there are: left to right" in errors
