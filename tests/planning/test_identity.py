"""What profiles belong to: the device of the weights, its cores, and the weights themselves."""

import gc
import hashlib
import importlib
import os
import types

import jax
import jax.numpy as jnp
import numpy as np

from mtjax.decode.planned import Arm
from mtjax.decode.speculative import Speculative
from mtjax.draft import PromptLookup
from mtjax.native import build
from mtjax.planning.calibration import PlanRequest
from mtjax.planning.candidate import PlanCandidate
from mtjax.planning.identity import device_kind, identity
from mtjax.report import results
from mtjax.sampling.logits import Sampling
from mtjax.text import TextModel
from tests.draft.drafters import LETTERS, PARAMS, TARGET

# The package gives its function the same name.
IDENTITY = importlib.import_module("mtjax.planning.identity")
TEXT = TextModel(TARGET, PARAMS, LETTERS, "tiny")


def test_where_the_system_has_no_affinity_all_cores_count(monkeypatch):
  monkeypatch.delattr(os, "sched_getaffinity", raising=False)
  monkeypatch.setattr(os, "cpu_count", lambda: 7)
  assert build.allowed_cores() == 7 and results.hardware()["cores"] == 7
  assert identity(TEXT, "lookup")["device"].endswith(", 7 cores")


def test_the_device_is_that_of_the_weights(monkeypatch):
  here = device_kind(PARAMS)
  first = types.SimpleNamespace(platform="gpu", device_kind="H200")
  monkeypatch.setattr(jax, "devices", lambda: [first])
  assert device_kind() == device_kind({"on the host": np.ones(2)}) == "H200"
  assert identity(TEXT, "lookup")["device"] == device_kind(PARAMS) == here != "H200"


def test_the_fingerprint_reads_elements_of_flat_arrays():
  params = {
    "a": np.arange(60.0, dtype=np.float32).reshape(3, 4, 5),
    "b": jnp.arange(7, dtype=jnp.bfloat16),
    "c": np.float32(3),
    "d": np.zeros((0, 2)),
  }
  plain = hashlib.sha256()
  for name, leaf in params.items():
    plain.update(f"['{name}'] {leaf.shape} {leaf.dtype}".encode())
    if leaf.size:
      flat = np.asarray(leaf).reshape(-1)
      plain.update(flat[np.linspace(0, flat.size - 1, 16).astype(int)].tobytes())
  assert IDENTITY._fingerprint(params) == plain.hexdigest()[:12]


def test_an_array_of_more_than_two_billion_elements_is_not_copied():
  size = 1 << 16
  # One column, as all columns of an array of 2**32 elements.
  leaf = np.broadcast_to(np.arange(size, dtype=np.uint16)[:, None], (size, size))
  places = np.linspace(0, size**2 - 1, 16).astype(np.int64)
  np.testing.assert_array_equal(IDENTITY._elements(leaf), places >> 16)


def test_an_array_is_read_once_while_it_lives(monkeypatch):
  read, elements = [], IDENTITY._elements

  def counted(leaf):
    read.append(leaf.shape)
    return elements(leaf)

  monkeypatch.setattr(IDENTITY, "_elements", counted)
  params = {"a": jnp.arange(6.0), "b": np.arange(3.0)}
  first = IDENTITY._fingerprint(params)
  assert IDENTITY._fingerprint(dict(params)) == first
  # NumPy's arrays may change, so they are read each time.
  assert read == [(6,), (3,), (3,)]
  params["b"][0] = 9.0
  second = IDENTITY._fingerprint(params)
  params["a"] = params["a"] + 1.0  # a step of training makes another array
  gc.collect()
  assert len({first, second, IDENTITY._fingerprint(params)}) == 3
  key = id(params["a"])
  assert IDENTITY._READ[key][0]() is params["a"]
  params.clear()
  gc.collect()
  assert key not in IDENTITY._READ


def test_a_request_has_one_name_however_its_numbers_are_written():
  arm = Arm("lookup", Speculative(PromptLookup(length=7)), (8,))
  candidate = PlanCandidate(arm, None, "lookup")
  of = [
    PlanRequest(sampling=Sampling(temperature=one)).of(TEXT, candidate)
    for one in (1, 1.0, np.float32(1), 0.5)
  ]
  assert of[0] == of[1] == of[2] != of[3]
  assert PlanRequest(sampling=Sampling(top_p=0.9)).of(TEXT, candidate)["sampling"] == "greedy"
