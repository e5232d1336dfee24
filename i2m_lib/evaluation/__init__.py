"""Evaluation: metrics of two surfaces, named protocols, baselines, statistics over shapes."""
