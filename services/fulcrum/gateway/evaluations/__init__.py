"""Evaluations of corrections: reports, flip boards and tables."""
