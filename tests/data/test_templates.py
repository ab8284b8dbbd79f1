"""Limits of templates in time, memory, length and depth; after a refusal the next one works."""

import concurrent.futures
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mtjax.data.templates import Renderer, RenderLimits, Unrenderable

pytest.importorskip("jinja2", reason="pip install mtjax[hf]")


@pytest.fixture(scope="module")
def renderer():
  made = Renderer(RenderLimits(seconds=1.0, memory=1 << 28, characters=1000))
  yield made
  made.close()


# In each, one step of Python takes extremely long or all memory, or there are too many steps.
HOSTILE = {
  "loops": "{% for i in range(90000) %}{% for j in range(90000) %}{% endfor %}{% endfor %}",
  "a list in itself": "{% set ns = namespace(x=[1]) %}{% for i in range(60) %}"
  "{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}",
  "a large power": "{{ 10 ** (10 ** 9) }}",
  "calls": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}"
  "{{ f(90) }}",
  "a long word": "{{ 'a' * 10 ** 10 }}",
  "a wide field": "{{ '%100000000000d' | format(1) }}",
  "words that double": "{% set ns = namespace(x='a') %}{% for i in range(60) %}"
  "{% set ns.x = ns.x + ns.x %}{% endfor %}",
  "a long text": "{{ 'a' * 1001 }}",
  "a large range": "{% for i in range(10 ** 9) %}{% endfor %}",
  "a macro without an end": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
  "a deep expression": "{{ " + "(" * 100_000 + "1" + ")" * 100_000 + " }}",
}


@pytest.mark.parametrize("template", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_template_is_refused_and_the_next_is_rendered(renderer, template):
  start = time.perf_counter()
  with pytest.raises(Unrenderable):
    renderer.render(template, {})
  assert time.perf_counter() - start < 60, "the limit is 1 s: nothing ended it"
  assert renderer.render("{{ a }}", dict(a="fine")) == "fine"


@pytest.mark.parametrize(
  ("template", "why"),
  [
    (HOSTILE["loops"], "more than 1 s"),
    (HOSTILE["a long word"], "more than 256 MiB of memory"),
    (HOSTILE["a long text"], "more than 1000 characters"),
    ("{{ raise_exception('no ' * 9999) }}", "^(no ){333}"),
  ],
)
def test_the_limit_is_named(renderer, template, why):
  with pytest.raises(Unrenderable, match=why):
    renderer.render(template, {})


def test_a_template_below_the_limits_is_rendered(renderer):
  assert renderer.render("{{ 'a' * 1000 }}", {}) == "a" * 1000


def test_a_template_cannot_use_private_names(renderer):
  for template in ("{% set ns = namespace(__class__=1) %}", "{{ dict.__subclasses__() }}"):
    with pytest.raises(Unrenderable, match="__"):
      renderer.render(template, {})


def test_threads_get_their_own_texts(renderer):
  with concurrent.futures.ThreadPoolExecutor(4) as pool:
    texts = pool.map(lambda i: renderer.render("{{ i }}", dict(i=i)), range(40))
    assert list(texts) == [str(i) for i in range(40)]


def test_a_process_that_was_ended_by_others_is_started_again(renderer):
  renderer.render("a", {})
  renderer._process.kill()
  renderer._process.wait()
  assert renderer.render("b", {}) == "b"


def test_values_that_json_cannot_express_are_refused(renderer):
  nested = []
  for _ in range(100_000):
    nested = [nested]
  for value in (object(), {1, 2}, nested):
    with pytest.raises(Unrenderable, match="must be JSON values"):
      renderer.render("a", dict(value=value))


@pytest.mark.skipif(sys.platform == "win32", reason="no signals")
def test_only_the_program_handles_an_interrupt_and_no_process_is_left():
  program = """
import os, signal
from mtjax.data.templates import renderer
assert renderer().render("a", {}) == "a"
os.kill(renderer()._process.pid, signal.SIGINT)
assert renderer().render("b", {}) == "b"
print(renderer()._process.pid)
"""
  root = Path(__file__).parents[2]
  out = subprocess.run(
    [sys.executable, "-c", program],
    env={**os.environ, "PYTHONPATH": str(root), "JAX_PLATFORMS": "cpu"},
    capture_output=True,
    text=True,
    check=True,
  )
  with pytest.raises(ProcessLookupError):
    os.kill(int(out.stdout), 0)
