"""Makes the API reference from docstrings: a hook of mkdocs.yml, run by `make docs`.

One page per public module. The pages are made while the site is built and are not kept.
"""

MODULES = (
  "mtjax",
  "mtjax.frontier",
  "mtjax.cache",
  "mtjax.types",
  "mtjax.models",
  "mtjax.models.access",
  "mtjax.models.lora",
  "mtjax.models.diffusion_gemma",
  "mtjax.sampling",
  "mtjax.sharding",
  "mtjax.hosts",
  "mtjax.sharding.vocabulary",
  "mtjax.trees",
  "mtjax.trees.encodings",
  "mtjax.rounds",
  "mtjax.rounds.history",
  "mtjax.constraints",
  "mtjax.draft",
  "mtjax.draft.protocol",
  "mtjax.verify",
  "mtjax.tuning",
  "mtjax.tuning.profiles",
  "mtjax.tuning.roofline",
  "mtjax.tuning.shapes",
  "mtjax.tuning.budget",
  "mtjax.tuning.online",
  "mtjax.tuning.elsewhere",
  "mtjax.tuning.simulation",
  "mtjax.decode",
  "mtjax.decode.planned",
  "mtjax.anysubset",
  "mtjax.anysubset.infill",
  "mtjax.anysubset.orders",
  "mtjax.anysubset.likelihood",
  "mtjax.diffusion",
  "mtjax.diffusion.order",
  "mtjax.diffusion.transfer",
  "mtjax.diffusion.transfer.gumbel",
  "mtjax.diffusion.revise",
  "mtjax.diffusion.denoising",
  "mtjax.diffusion.denoising.caches",
  "mtjax.diffusion.denoising.guidance",
  "mtjax.diffusion.denoising.machines",
  "mtjax.diffusion.denoising.adaptive",
  "mtjax.diffusion.noising.edit_labels",
  "mtjax.diffusion.texts",
  "mtjax.diffusion.traces.frames",
  "mtjax.diffusion.traces.filled",
  "mtjax.diffusion.uniform",
  "mtjax.diffusion.uniform.texts",
  "mtjax.diffusion.filled_texts",
  "mtjax.data",
  "mtjax.data.sources",
  "mtjax.data.templates",
  "mtjax.text",
  "mtjax.checkpoints",
  "mtjax.checkpoints.adapters",
  "mtjax.checkpoints.gguf",
  "mtjax.checkpoints.families.diffusion",
  "mtjax.pretrained",
  "mtjax.planning",
  "mtjax.planning.calibration",
  "mtjax.planning.auto",
  "mtjax.planning.store",
  "mtjax.registry.by_name",
  "mtjax.registry.methods",
  "mtjax.registry.configs",
  "mtjax.registry.denoising.methods",
  "mtjax.registry.denoising.denoiser",
  "mtjax.registry.denoising.uniform_denoiser",
  "mtjax.registry.denoising.adaptive",
  "mtjax.registry.denoising.filler",
  "mtjax.registry.constraints",
  "mtjax.evaluate.denoising",
  "mtjax.evaluate.exactness",
  "mtjax.evaluate.generative",
  "mtjax.evaluate.samples",
  "mtjax.evaluate.harness",
  "mtjax.evaluate.perplexity",
  "mtjax.report.history.page",
  "mtjax.report.plans",
  "mtjax.report.canvas.page",
  "mtjax.report.canvas.gif",
  "mtjax.train",
  "mtjax.train.losses.objective",
  "mtjax.train.losses.registry",
  "mtjax.cli.sweep.combinations",
  "mtjax.native",
  "mtjax.bench.compile",
  "mtjax.bench.pods",
  "mtjax.recipes.resgen",
)


def page(module: str) -> str:
  """Returns the Markdown of a module's page."""
  return f"# {module}\n\n::: {module}\n    options:\n      show_root_heading: false\n"


def on_config(config):
  """Returns the site's configuration with the pages in its navigation."""
  reference = next(entry for entry in config.nav if "API reference" in entry)
  reference["API reference"] = [{name: f"api/{name}.md"} for name in MODULES]
  return config


def on_files(files, config):
  """Returns the site's files with the pages among them."""
  from mkdocs.structure.files import File

  for name in MODULES:
    files.append(File.generated(config, f"api/{name}.md", content=page(name)))
  return files
