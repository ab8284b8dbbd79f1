"""Sets of prompts and of texts with blanks, read from files."""
