"""The training run of the tests of several processes."""

from pathlib import Path

from configs.train.tiny import tiny

STEPS = 6


def run_config(folder: Path, mesh: tuple[int, int]):
  """Returns the config of a run on a small text in `folder`, which saves every second step."""
  config = tiny()
  config.model.update(heads=2, kv_heads=2)
  source = f"file:{folder}/text.txt"
  config.data.update(
    sources=(source,), eval_sources=(f"own={source}",), cache_dir=str(folder / "tokens")
  )
  config.optimizer.name = "adamw"
  config.update(steps=STEPS, warmup=1, decay=0, save_every=2, keep=4, mesh=mesh)
  return config
