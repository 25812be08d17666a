"""What benchmarks share: timing, commands as jobs, worlds whose dynamics are known."""
