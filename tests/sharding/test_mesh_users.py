"""A mesh as users name it: in Python as in the guide, and on the command line."""

import json
import os

import pytest

import mtjax
from tests import tiny_model
from tests.forked import launch


def test_the_guide_runs_and_keeps_what_it_promises(tmp_path):
  code, _, errors = launch("tests.sharding.guide", str(tmp_path))
  assert code == 0, errors[-3000:]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  return tiny_model.save(tmp_path_factory.mktemp("model") / "tiny")


def test_the_launcher_decodes_on_a_mesh_and_writes_which(folder, tmp_path, monkeypatch):
  out = tmp_path / "run.json"
  devices = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=2"
  monkeypatch.setenv("XLA_FLAGS", devices)
  code, _, errors = launch(
    "experiments.decode", "--config=lookup", f"--config.model={folder}", "--config.max_tokens=6",
    "--config.mesh=data:2", "--prompt=one two one", f"--output={out}",
  )  # fmt: skip
  assert code == 0, errors[-3000:]
  record = json.loads(out.read_text())
  assert record["settings"]["mesh"] == "data:2"
  one = mtjax.load(str(folder), weights=None).generate(["one two one"], max_tokens=6)[0]
  assert record["rows"][0]["tokens"] == one[0].tokens
