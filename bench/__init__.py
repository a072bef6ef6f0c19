"""Benchmarks: whole servers side by side (run.py), the core's stages in process (test_stages.py)."""
