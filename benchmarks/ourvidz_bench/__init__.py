"""What is measured beside peers, each in one run with what it is compared with: `python -m ourvidz_bench --help`."""
