"""Draws the picture of a canvas that becomes text: python -m docs.make.canvas

It needs the extra viz, and a minute. --model=FOLDER draws another masked model.
"""

from pathlib import Path

from absl import flags

from mtjax.cli import flags as launch

PICTURE = Path(__file__).resolve().parents[2] / "docs" / "pictures" / "canvas.gif"
PROMPT = "The old clock struck nine, and"
_MODEL = flags.DEFINE_string("model", "masked", "Masked model: a bundled one, or a folder.")


def run() -> None:
  import mtjax
  from mtjax.report.canvas.gif import save_gif
  from mtjax.report.canvas.record import canvas_run

  model, frames = mtjax.load(_MODEL.value), []
  method = mtjax.denoiser("llada", length=64, steps=32)
  model.denoise(PROMPT, method=method, on_pass=frames.append)
  save_gif(PICTURE, canvas_run(model, [PROMPT], frames), model.tokenizer)
  print(f"wrote {PICTURE}")


if __name__ == "__main__":
  launch.main(run)
