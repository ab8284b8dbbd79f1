"""Several drafts at one position: the acceptance of verifiers, and its bounds (2502.18779)."""
