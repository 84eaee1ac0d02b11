"""Run the command line where the program `ourvidz` is not on the path: `python -m ourvidz.cli`."""

from ourvidz.cli import main

main()
