"""Objectives of models that edit what they have decided, one file each."""
