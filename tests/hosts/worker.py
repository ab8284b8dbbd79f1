"""One process of two, run by test_two_processes.py: worker.py PART INDEX PORT FOLDER.

Prints a JSON object of what it saw. Part "first" has two devices per process and is told its
place; "second" has one, and finds it in the environment of a Slurm step.
"""

import contextlib
import json
import os
import signal
import sys
import time
from pathlib import Path

import jax

PART, INDEX, PORT, FOLDER = sys.argv[1], int(sys.argv[2]), sys.argv[3], Path(sys.argv[4])
DEVICES = {"first": 2, "second": 1}[PART]
jax.config.update("jax_num_cpu_devices", DEVICES)

import numpy as np  # noqa: E402

from mtjax import hosts, sharding, train  # noqa: E402
from mtjax.anysubset import fill  # noqa: E402
from mtjax.cli.hosts.once import silent  # noqa: E402
from mtjax.data.tokenizers import ByteTokenizer  # noqa: E402
from mtjax.draft import host  # noqa: E402
from mtjax.evaluate.texts import check_same_documents  # noqa: E402
from mtjax.pretrained import with_adapter  # noqa: E402
from mtjax.rounds.placement import Placement  # noqa: E402
from mtjax.text import TextModel  # noqa: E402
from tests.hosts.runs import (  # noqa: E402
  STEPS,
  decoded,
  denoised,
  filled,
  filling,
  planned,
  run_config,
)

HEARTBEAT = 3


def refusal(call) -> str:
  """Returns the message of the mistake that `call` raises."""
  try:
    call()
  except (ValueError, OSError) as error:
    return str(error)
  return "nothing was refused"


def fail_in(index: int) -> None:
  with hosts.together("reading"):
    if hosts.count() > 1 and INDEX == index:
      raise FileNotFoundError("there is no file x")


def at_step(step: int, act) -> None:
  """Calls `act` in process 1 before it feeds the batch of that step, counted from here."""
  place, calls = hosts.HostRows.place, []

  def counted(self, arrays):
    calls.append(arrays)
    if INDEX == 1 and len(calls) == step:
      act()
    return place(self, arrays)

  hosts.HostRows.place = counted


def own_file() -> Path:
  path = FOLDER / f"weights-{INDEX}"
  path.write_text(f"weights {INDEX}")
  return path


def named_files() -> None:
  """Compares files of the same name in the home folders of the processes."""
  home = FOLDER / f"home-{INDEX}"
  home.mkdir()
  (home / "counts.json").write_text(f"counts {INDEX}")
  os.environ["HOME"] = str(home)
  order = "position_calibrated:frequencies=~/counts.json"
  hosts.check_same_named_files("file of the config", dict(seed=1, denoise=dict(order=order)))


def begun_from_own_file():
  """Returns the config of a run that begins with a file of each process's own home folder."""
  config = run_config(FOLDER, (2, 2))
  config.init = "~/counts.json"
  return config


def on(mesh) -> TextModel:
  inputs = filling(mesh)
  return TextModel(inputs["model"], inputs["params"], ByteTokenizer(), "tiny", mesh)


def launched(mesh) -> dict | None:
  """Denoises as mtjax-decode does, in which process 0 alone prints and writes."""
  with contextlib.nullcontext() if hosts.is_first() else silent():
    return denoised(FOLDER / f"denoised-{INDEX}", mesh)


def spread_filling(mesh) -> dict:
  """Returns arguments of `fill` that do not say where the parameters are."""
  inputs = filling()
  return inputs | dict(params=sharding.shard_params(inputs["params"], mesh))


def host_method(mesh) -> None:
  """Traces a call to a store on the host in a program on a mesh of two processes."""
  shape = jax.ShapeDtypeStruct((), np.int32)
  with sharding.on_mesh(mesh):
    jax.jit(lambda x: host.call(lambda _, y: y, shape, x, x)).lower(np.int32(1))


def agreements() -> dict:
  mesh = sharding.make_mesh(2, 2)
  one_each = sharding.make_mesh(2, devices=[jax.devices()[0], jax.devices()[-1]])
  rows = {}
  for name, shape in (("split", (4, 1)), ("shared", (1, 4))):
    placed = hosts.HostRows.of(sharding.batch_sharding(sharding.make_mesh(*shape)), 4)
    numbers = np.asarray(placed.rows)
    whole = placed.place(dict(x=numbers))["x"]
    parts = {int(n) for s in whole.addressable_shards for n in np.asarray(s.data)}
    assert whole.shape == (4,) and parts == set(numbers.tolist())
    rows[name] = numbers.tolist()
  config = run_config(FOLDER, (2, 1))
  other = run_config(FOLDER, (2, 2))
  other.seed = INDEX
  separate = run_config(FOLDER, (2, 2))
  return dict(
    rows=rows,
    gathered=hosts.gather("x" * 5000 * INDEX),
    unequal=refusal(lambda: hosts.check_equal("software", dict(jax="0.1", a=dict(b=INDEX)))),
    failed=refusal(lambda: fail_in(1)),
    small_mesh=refusal(lambda: train.run(config, FOLDER / "none")),
    other_config=refusal(lambda: train.run(other, FOLDER / "none")),
    not_shared=refusal(lambda: train.run(separate, FOLDER / f"own-{INDEX}")),
    other_prompts=refusal(lambda: hosts.check_same("prompts", [f"prompt {INDEX}"])),
    other_texts=refusal(
      lambda: check_same_documents(dict(same=[(np.arange(3), 3)], own=[(np.arange(INDEX), 1)]))
    ),
    other_files=refusal(lambda: hosts.check_same_files("files", own_file())),
    on_host=refusal(lambda: host_method(mesh)),
    named_files=refusal(named_files),
    other_init=refusal(lambda: train.run(begun_from_own_file(), FOLDER / "none")),
    other_adapters=refusal(lambda: with_adapter(on(mesh), "~")),
    mesh_as_text=refusal(lambda: on(None).on_mesh("data:4")),
    part_of_mesh=refusal(lambda: fill(**filling(one_each))),
    spread=refusal(lambda: fill(**spread_filling(mesh))),
    decoded=decoded(mesh),
    planned=planned(FOLDER / f"plans-{INDEX}", sharding.make_mesh(1, 4)),
    filled=filled(mesh),
    denoised=launched(mesh),
    mesh=[device.process_index for device in mesh.devices.flat],
  )


def end_after_save() -> None:
  """Kills this process when step 4 is saved, which goes on while the next step begins."""
  while not (FOLDER / "run/checkpoints/4").exists():
    time.sleep(0.02)
  os.kill(os.getpid(), signal.SIGKILL)


def first() -> None:
  """Agrees on this and that, trains, and is killed at step 5 of the run's 6 steps."""
  tell(agreements())
  at_step(5, end_after_save)
  train.run(run_config(FOLDER, (2, 2)), FOLDER / "run")


def places_of_scored_rows() -> list[str]:
  """Returns a list that gets the shardings of the tokens that are scored from now on."""
  put, seen = Placement.put, []

  def recorded(self, inputs):
    out = put(self, inputs)
    seen.extend(str(getattr(tokens, "sharding", None)) for tokens in out[1:2])
    return out

  Placement.put = recorded
  return seen


def second() -> None:
  """Ends the killed run on two devices, is terminated in another, and then falls silent."""
  scored = places_of_scored_rows()
  out = dict(resumed=train.run(run_config(FOLDER, (2, 1)), FOLDER / "run"))
  wanted = sharding.batch_sharding(sharding.make_mesh(2, 1))
  out["scored"] = [{*scored} == {str(wanted)}, scored]
  at_step(2, lambda: os.kill(os.getpid(), signal.SIGTERM))
  longer = run_config(FOLDER, (1, 2))
  longer.steps = 2000
  longer.save_every = 2000
  out["terminated"] = train.run(longer, FOLDER / "terminated")
  out["steps"] = sorted(int(path.name) for path in (FOLDER / "terminated/checkpoints").iterdir())
  tell(out)
  hosts.gather("")
  if INDEX == 1:
    os.kill(os.getpid(), signal.SIGKILL)
  time.sleep(60)


def tell(record: dict) -> None:
  print(json.dumps(record), flush=True)


def main() -> None:
  assert STEPS == 6
  text = {"first": f"localhost:{PORT},2,{INDEX}", "second": "slurm"}[PART]
  place = hosts.HostPlace.parse(text)
  hosts.meet(place, heartbeat=HEARTBEAT, wait=100)
  with hosts.ends_together():
    dict(first=first, second=second)[PART]()


if __name__ == "__main__":
  main()
