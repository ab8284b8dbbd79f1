"""Launchers of the recipes, one each."""
