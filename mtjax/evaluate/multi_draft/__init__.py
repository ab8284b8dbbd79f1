"""Several drafts at a position: what verifiers accept, and the bounds (2502.18779)."""
