"""Figures from compilers' reports, and the document of them; no compiler is needed."""

import json

import pytest

from mtjax.bench.compile import (
  CHIPS,
  LAYER,
  MESHES,
  Compiled,
  CompiledShape,
  CompileJob,
  Figures,
  chips,
  compiled,
  dumps,
  process,
  programs,
  table,
)
from mtjax.report.compilation_tables import document, tables

BUNDLES = """
LB: loop body
     0   :  { %s1_s0 = smov.u32 0 }
   0x1   :  { %s2_s0 = smov.u32 1  ;;  %v3 = vld [vmem:[%s1_s0] sm:$0xff] }
   0x2 LB: > { %v4 = vadd.f32 %v3, %v3 }
   0x3   : > { %5 = sbr.rel (%p1) target bundleno = 6 (0x6), region = 8 }
   0x4   : >> { %v6 = vmul.f32 %v4, %v4
   continued 0x9 }
   0x5   : >> { %v7 = vpow2.f32 %v6 }
   0x6   : >> { %v8 = vpow2.f32 %v7 }
   0x7 PF: > { %s9 = smov.u32 2 }
"""
PTXAS = """
ptxas info    : Compiling entry function 'attend' for 'sm_90a'
ptxas         .     64 bytes stack frame, 24 bytes spill stores, 28 bytes spill loads
ptxas info    : Used 188 registers, used 2 barriers, 17 bytes smem
ptxas info    : Compile time = 556.243 ms
"""
LAUNCH = "%1 = gpu.launch async threads(%a) dynamic_shared_memory_size %c127024_i32 {"


def test_straight_pieces_end_where_a_program_branches():
  assert dumps.straight_pieces(BUNDLES) == [2, 2, 3, 1]


def test_memory_and_spills_of_a_tpu_are_those_of_the_kernels(tmp_path):
  spill = {"size": 8192, "tag": "SPILL"}
  block = {"allocations": [{"size": 4096, "tag": "scratch"}, spill, spill]}
  data = {
    "hlo_breakdowns": {
      "fusion.1": {"blocks": [block] * 3, "total_size": 1 << 30},
      "frontier_attention.1": {"blocks": [{"block_size": 4096}, block], "total_size": 24576},
      "frontier_attention.2": {"blocks": [{"block_size": 4096}], "total_size": 32768},
    }
  }
  report = f"<script>const size = 1; const DATA ={json.dumps(data)};\nconst x = {{}};</script>"
  assert list(dumps.vmem(report, "frontier_attention")) == [
    ("frontier_attention.1", 24576, 16384),
    ("frontier_attention.2", 32768, 0),
  ]
  (tmp_path / "17-TLP-02-vmem_report.html").write_text(report)
  for name, text in (("attention.1", BUNDLES), ("attention.2", BUNDLES[:80])):
    (tmp_path / f"17-frontier_{name}-00-schedule-analysis_final_bundles.txt").write_text("")
    (tmp_path / f"17-frontier_{name}-01-final_bundles.txt").write_text(text)
  assert dumps.tpu_figures(tmp_path, "frontier_attention") == Figures(32768, 16384, bundles=3)
  assert dumps.tpu_figures(tmp_path, "another") is None


def test_registers_spills_and_shared_memory_of_a_gpu(tmp_path):
  assert dumps.gpu_figures(tmp_path) is None
  (tmp_path / "attend_0.ptxas").write_text(PTXAS)
  (tmp_path / "attend_0.before_layout_inference.txt").write_text(LAUNCH)
  expected = Figures(memory=127024 + 17, spilled=28, registers=188)
  assert dumps.gpu_figures(tmp_path) == expected
  with pytest.raises(ValueError, match="the compiler's report has no"):
    dumps.gpu_kernel(PTXAS.replace("spill", "drop"), LAUNCH)


def test_a_missing_compiler_is_refused_by_the_name_of_the_extra(monkeypatch):
  monkeypatch.setitem(chips._COMPILERS, "tpu", ("libtpu-of-mars",))
  with pytest.raises(ModuleNotFoundError, match="needs libtpu-of-mars: the extra `aot`"):
    compiled(CHIPS["v4"], [CompileJob(LAYER)])
  with pytest.raises(ValueError, match="unknown chip 'z80'; there are: v4, v5e"):
    table(["z80"])


def test_a_process_that_compiles_has_nobodys_settings(monkeypatch):
  monkeypatch.setenv("JAX_DEFAULT_MATMUL_PRECISION", "highest")
  monkeypatch.setenv("XLA_FLAGS", "--xla_dump_to=somewhere")
  environment = process._environment(CHIPS["v4"], "/folder")
  assert {n: v for n, v in environment.items() if n.startswith(("JAX_", "XLA_"))} == {
    "JAX_PLATFORMS": "cpu"
  }
  assert "--xla_jf_dump_to=/folder" in environment["LIBTPU_INIT_ARGS"]


def test_shapes_say_what_they_are():
  shape = CompiledShape(1, page=256, cache_dtype="int8", window=1024, width=256)
  assert str(shape) == "1 entry, pages of 256, heads of 256, int8 cache, window of 1,024"
  assert shape.cache_bytes == 2 * 257 * 8 * 256 * 256
  assert str(CompiledShape(2048, capacity=0)) == "2,048 entries, no cache"
  assert [CompiledShape(16).keys_of_step, CompiledShape(16, page=512).keys_of_step] == [256, 512]
  with pytest.raises(ValueError, match="must divide the capacity"):
    CompiledShape(1, capacity=100, page=64)
  with pytest.raises(ValueError, match="has no cache"):
    CompiledShape(1, gradient=True)


def test_a_layer_needs_a_mesh():
  with pytest.raises(ValueError, match="needs a mesh"):
    programs.layer(LAYER, "tpu")


def test_the_document_has_a_row_for_each_shape_and_says_why_one_is_absent():
  wide, narrow = CompiledShape(16, page=256), CompiledShape(16, page=256, width=64)
  half = wide.cache_bytes // 2
  rows = [
    Compiled(
      "v5e", CompileJob(wide), 2.0, temporary=1 << 20, figures=Figures(3 << 20, 1 << 19, 1344)
    ),
    Compiled("v5e", CompileJob(narrow), refused="reads heads of 128"),
    Compiled("v6e", CompileJob(wide), 2.0, temporary=half, figures=Figures(3 << 20, 0, 1024)),
    Compiled("v6e", CompileJob(narrow), failed="no room\nat all"),
    Compiled("v5e 2x4", CompileJob(LAYER, "layer"), 2.0, 1 << 26, 0, ("all-reduce bf16[4]",)),
  ]
  assert [one.copies_cache for one in rows[:3:2]] == [False, True]
  bundles, memory, temporary, meshes = tables(rows)
  assert bundles.rows == [
    ("16 entries, pages of 256", "5.25", "4.00"),
    ("16 entries, pages of 256, heads of 64", "refused", "fails"),
  ]
  assert memory.rows[0][1:] == ("3.00, 0.50", "3.00, 0.00")
  assert temporary.rows[0][1:] == ("1.00 (257)", "128.50 (257)")
  assert meshes.rows == [("v5e 2x4", "64.00", "0.00", "all-reduce bf16[4]")]
  text = document(rows)
  assert text.endswith(
    "- 16 entries, pages of 256, heads of 64: reads heads of 128\n"
    "- 16 entries, pages of 256, heads of 64 on v6e: no room\n"
  )
  assert set(MESHES) == {"v5e 2x4", "v6e 2x4"}
