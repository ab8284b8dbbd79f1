"""The inner side of `renderer`: renders one template per line, with jinja2 and no other package."""

import datetime
import functools
import json
import signal
import sys
from typing import Any

try:
  import jinja2
  from jinja2 import ext, nodes, sandbox, utils
except ImportError:
  raise ImportError("chat templates need jinja2: pip install mtjax[hf]") from None

_LONGEST_ERROR = 1000  # characters; limited because a template writes its own errors


class GenerationBlock(ext.Extension):
  """The block {% generation %} .. {% endgeneration %}, which marks words to train on.

  It prints its content.
  """

  tags = {"generation"}

  def parse(self, parser: Any) -> Any:
    line = next(parser.stream).lineno
    body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
    # A scope of its own, as in transformers: variables that are set inside are unknown outside.
    return nodes.Scope(body).set_lineno(line)


class Namespace(utils.Namespace):
  """A jinja2 namespace without names that reach into Python."""

  def __init__(*args: Any, **values: Any):
    self, *rest = args  # a name may be "self"
    attributes = dict(*rest, **values)
    for name in attributes:
      _check_name(name)
    utils.Namespace.__init__(self, attributes)

  def __setitem__(self, name, value):
    _check_name(name)
    utils.Namespace.__setitem__(self, name, value)


def _check_name(name):
  if isinstance(name, str) and name.startswith("_"):
    raise jinja2.exceptions.SecurityError(f"a namespace cannot hold the name {name!r}")


def _refuse(message):
  raise jinja2.TemplateError(message)


def _now(form):
  return datetime.datetime.now().strftime(form)


def _tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
  # In place of jinja2's own filter, which escapes for HTML.
  return json.dumps(
    value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
  )


@functools.lru_cache(maxsize=8)
def compiled(template: str) -> jinja2.Template:
  """Compiles the template in the environment that transformers has for chat templates."""
  environment = sandbox.ImmutableSandboxedEnvironment(
    trim_blocks=True, lstrip_blocks=True, extensions=[GenerationBlock, ext.loopcontrols]
  )
  environment.filters["tojson"] = _tojson
  functions: dict[str, Any] = dict(namespace=Namespace, raise_exception=_refuse, strftime_now=_now)
  environment.globals = {**environment.globals, **functions}
  return environment.from_string(template)


def answer(line: bytes, longest: int) -> dict[str, Any]:
  """Returns {"text": ...}, or {"error": ...} that says why there is no text."""
  try:
    request = json.loads(line)
    text = compiled(request["template"]).render(**request["variables"])
  except MemoryError:
    raise
  except jinja2.TemplateError as error:
    return dict(error=f"{error}"[:_LONGEST_ERROR])
  except RecursionError:
    return dict(error="it calls itself too often")
  except Exception as error:
    return dict(error=f"{type(error).__name__}: {error}"[:_LONGEST_ERROR])
  if len(text) > longest:
    return dict(error=f"it writes more than {longest} characters")
  return dict(text=text)


def _limit_memory(size: int) -> None:
  try:
    import resource
  except ImportError:
    return  # Windows
  try:
    resource.setrlimit(resource.RLIMIT_AS, (size, size))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
  except (ValueError, OSError):
    pass  # macOS has no limit of address space


def main(seconds: int, memory: int, longest: int) -> None:
  # The other side handles an interrupt, and ends this process if it waits for it.
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  _limit_memory(memory)
  # The other side measures the time; this alarm ends a loop if that side is gone.
  alarm = getattr(signal, "alarm", lambda seconds: None)
  out = sys.stdout.buffer
  out.write(b"ready\n")
  out.flush()
  for line in sys.stdin.buffer:
    alarm(seconds)
    try:
      reply = json.dumps(answer(line, longest)).encode()
    except MemoryError:
      compiled.cache_clear()
      reply = json.dumps(dict(error=f"it needs more than {memory >> 20} MiB of memory")).encode()
    alarm(0)
    out.write(reply + b"\n")
    out.flush()


if __name__ == "__main__":
  main(*map(int, sys.argv[1:]))
