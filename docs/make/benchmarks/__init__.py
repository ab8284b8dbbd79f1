"""Makes the sections of pages that results/*.json fill: python -m docs.make.benchmarks"""
