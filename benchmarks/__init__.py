"""What zeventfs takes, side by side with the least that it could take: `python -m benchmarks`."""
