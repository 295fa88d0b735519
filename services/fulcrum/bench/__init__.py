"""Benchmarks: ratios of contenders that run interleaved in one process, on the same input, answers compared first."""
