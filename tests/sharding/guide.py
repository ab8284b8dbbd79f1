"""Run by test_mesh_users.py in a process of its own: the guide, then what its sentences promise."""

import sys
from pathlib import Path

from tests.source import ROOT, python_blocks

scope: dict = {}
for block in python_blocks(ROOT / "docs/guides/mesh.md"):
  exec(compile(block, "docs/guides/mesh.md", "exec"), scope)

import mtjax  # noqa: E402
from mtjax import sharding  # noqa: E402
from tests import tiny_model  # noqa: E402


def refused(call, words: str) -> None:
  try:
    call()
  except ValueError as error:
    assert words in str(error), error
  else:
    raise AssertionError(f"nothing was refused with {words!r}")


def main() -> None:
  model, folder = scope["model"], str(tiny_model.save(Path(sys.argv[1]) / "tiny"))
  qkv = model.params["layer_0"]["attention"]["qkv"]["kernel"]
  assert qkv.sharding.spec == sharding.P(None, sharding.MODEL), qkv.sharding
  assert model.on_mesh("data:2,model:2") is model

  plain = mtjax.load(folder, weights=None)
  assert plain.on_mesh("data:2") is plain.on_mesh({"data": 2})
  draft = mtjax.method("draft", draft_model=folder)
  there = mtjax.load(folder, mesh="data:2")
  texts = [
    one.generate("one two one", max_tokens=6, **more)[0][0].text
    for one, more in ((plain, {}), (there, dict(method=draft)))
  ]
  pieces = there.stream(["one two one"], max_tokens=6)
  texts.append("".join(piece for (piece,) in pieces))
  assert texts == [texts[0]] * 3 and texts[0], texts

  small = mtjax.load(folder, mesh="model:2", weights="int8")
  head = small.params["embedding"]["int8"]
  assert head.dtype.name == "int8" and head.sharding.spec == sharding.P(sharding.MODEL, None)

  packed = mtjax.load(folder)
  if "packed" in packed.params.get("head", {}):  # where native code is at hand
    refused(lambda: packed.generate("one", mesh="model:2"), "packed for one CPU")
    refused(
      lambda: mtjax.decode.generate(packed.model, packed.params, [[1]], mesh="model:2"),
      "load the model with mesh=",
    )
  refused(lambda: mtjax.load(folder, mesh="data:8"), "needs 8 devices, but there are 4")
  refused(lambda: mtjax.load(folder, mesh="rows:2"), "data, model, sequence, not 'rows'")
  refused(lambda: plain.generate("one", method=mtjax.method("draft", draft_model=there)), "mesh")


if __name__ == "__main__":
  main()
