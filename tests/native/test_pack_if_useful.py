"""Weights are packed while the compiler is at work, and stay as they are where it is of no use."""

import jax
import pytest

from mtjax import pretrained
from mtjax.models import Model, TransformerConfig, uniform_layers
from mtjax.native import build, matmul

MODEL = Model(TransformerConfig(8, 4, 1, 1, 4, 4, uniform_layers(2), max_position=8))


@pytest.fixture(scope="module")
def params():
  return MODEL.init(jax.random.key(0))


@pytest.fixture
def events(monkeypatch):
  """Returns the list of what happens: "packed", and "waited" for the compiler, which succeeds."""
  events, pack = [], pretrained.pack

  def recorded(*args, **settings):
    events.append("packed")
    return pack(*args, **settings)

  monkeypatch.setattr(pretrained, "pack", recorded)
  monkeypatch.setattr(build, "hindrance", lambda: None)
  monkeypatch.setattr(build, "unavailable", lambda: events.append("waited"))
  return events


def test_packing_does_not_wait_for_the_compiler(params, events):
  model, packed = pretrained.pack_if_useful(MODEL, params)
  assert events == ["packed", "waited"]
  assert model.config.layer_loop == "scanned" and "stack_0" in packed


def test_after_a_compiler_that_fails_the_model_is_as_it_was(params, events, monkeypatch):
  monkeypatch.setattr(build, "unavailable", lambda: "c++ failed: no such thing")
  assert pretrained.pack_if_useful(MODEL, params) == (MODEL, params)


def test_what_is_known_before_the_compiler_runs_is_not_packed_for(params, events, monkeypatch):
  monkeypatch.setattr(build, "hindrance", lambda: "no C++ compiler on PATH")
  assert pretrained.pack_if_useful(MODEL, params) == (MODEL, params)
  assert not events


def test_what_hinders_is_known_without_the_compiler(monkeypatch, tmp_path):
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
  monkeypatch.setattr(build, "build", lambda: pytest.fail("the compiler ran"))
  monkeypatch.delenv("MTJAX_NATIVE", raising=False)
  monkeypatch.delenv("CXX", raising=False)
  monkeypatch.setenv("PATH", "")
  assert "no C++ compiler on PATH" in matmul.hindrance()
  library = build._path()
  library.parent.mkdir(parents=True)
  library.touch()
  assert matmul.hindrance() is None, "a library that is compiled needs no compiler"
  monkeypatch.setenv("MTJAX_NATIVE", "off")
  assert "MTJAX_NATIVE=off" in matmul.hindrance()
  monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
  assert "gpu" in matmul.hindrance()
