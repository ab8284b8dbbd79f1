"""The families of masked and block diffusion models, under their authors' names of tensors."""

from mtjax.checkpoints.families.diffusion.diffusion_gemma import DIFFUSION_GEMMA
from mtjax.checkpoints.families.diffusion.dit import BD3LM, ESOLM, MDLM
from mtjax.checkpoints.families.diffusion.dream import DREAM
from mtjax.checkpoints.families.diffusion.fast_dllm import FAST_DLLM
from mtjax.checkpoints.families.diffusion.llada import LLADA
from mtjax.checkpoints.families.diffusion.sdar import SDAR

# In the order in which an export tries them.
DIFFUSION = (LLADA, DREAM, SDAR, FAST_DLLM, BD3LM, MDLM, ESOLM)

__all__ = ["DIFFUSION", "DIFFUSION_GEMMA"]
