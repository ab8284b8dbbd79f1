"""Files of profiles that other programs, or people, have changed."""

import dataclasses
import functools
import json
import operator

import numpy as np
import pytest

from mtjax.tuning import documents
from mtjax.tuning.documents import DamagedDocument
from mtjax.tuning.profiles import LatencyProfile, fit_curve

CURVE = fit_curve(1, 512, verify=[(1, 1.0), (4, 1.2)], draft=[(1, 0.1), (3, 0.3)])
PROFILE = LatencyProfile(dict(device="cpu", target="target", drafter="chain"), (CURVE,))


@pytest.mark.parametrize(
  ("place", "value", "message"),
  [
    (("verify", "fitted", 0), 99.0, "fitted seconds must not fall"),
    (("verify", "fitted", 1), float("nan"), "NaN is no finite number"),
    (("verify", "measured", 0), float("inf"), "Infinity is no finite number"),
    (("verify", "measured", 0), 0.0, "must be finite and above 0"),
    (("draft", "amount", 1), 2.5, "amounts must be whole numbers that rise"),
    (("alone",), -1.0, "start must be at least 0 and alone above 0: 0.0, -1.0"),
    (("start",), -1.0, "start must be at least 0 and alone above 0: -1.0, None"),
    pytest.param(("fixed",), 10**400, "int too large to convert to float", id="too large"),
    (("corrections",), [[4, 1.5], [4, 1.5]], "sizes that rise from 1 or more on"),
    (("corrections",), [[4, 0.0]], "by factors above 0"),
  ],
)
def test_a_latency_profile_with_impossible_times_is_damaged(place, value, message, tmp_path):
  file = tmp_path / "latency.json"
  PROFILE.save(file)
  record = json.loads(file.read_text())
  *path, last = place
  functools.reduce(operator.getitem, path, record["curves"][0])[last] = value
  file.write_text(json.dumps(record))
  with pytest.raises(DamagedDocument, match=message):
    LatencyProfile.load(file)


@pytest.mark.parametrize("name", ["fixed", "plain", "alone", "start"])
def test_a_curve_has_finite_times(name):
  for value in (np.nan, np.inf, -1.0):
    with pytest.raises(ValueError, match=f"{name}.*above 0"):
      dataclasses.replace(CURVE, **{name: value})


def test_a_file_that_another_program_sets_aside_before_it_is_read_is_none(tmp_path, monkeypatch):
  file, aside, read = tmp_path / "profile.json", tmp_path / "aside", documents.read
  PROFILE.save(file)

  def late(place, *settings):
    file.rename(aside)
    return read(place, *settings)

  monkeypatch.setattr(documents, "read", late)
  PROFILE.save(file)
  assert file.read_text() == aside.read_text()
