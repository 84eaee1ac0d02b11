"""The groups of commands, with their options. What a command does is in the module named like its group.

Those modules are imported by the commands that need them, so that `--help` and shell completion stay quick.
"""
