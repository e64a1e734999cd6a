"""Tables and plots, made from raw files alone: `python -m benchmarks.report`."""
