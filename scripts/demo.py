"""Starts the whole system on this machine, renders three images and an enhanced clip, shows where they are, stops."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from local_stack import LocalStack, ourvidz, running_stack

DATA = Path(".data/demo")


def main() -> int:
    """Return the exit status of the first `ourvidz generate` that failed, or 0."""
    arguments = _arguments()
    with running_stack(DATA, "demo") as stack:
        return _generate(stack, arguments, arguments.prompt, "--type=sdxl_image_fast", "--count=3") or _generate(
            stack, arguments, arguments.clip_prompt, "--type=video7b_fast_enhanced"
        )


def _generate(stack: LocalStack, arguments: argparse.Namespace, prompt: str, *options: str) -> int:
    print(flush=True)
    command = [*ourvidz("generate"), prompt, *options, f"--seed={arguments.seed}", f"--out={arguments.out}"]
    return subprocess.run(command, env=stack.environment, check=False).returncode


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="out", help="folder for the images and the clip")
    parser.add_argument("--seed", type=int, default=2026, help="the same seed gives the same images")
    parser.add_argument("--prompt", default="a lighthouse at dawn", help="what the images show")
    parser.add_argument("--clip-prompt", default="woman walking", help="what the clip shows, before it is enhanced")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
