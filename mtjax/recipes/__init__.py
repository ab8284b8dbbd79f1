"""Papers as small runnable programs: each a folder with its model, loss, decoder and README.

A recipe may import every other package, and no other package imports a recipe.
"""
