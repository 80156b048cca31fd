"""Which state of this project's code is running."""

import importlib.metadata
import subprocess
from pathlib import Path


def describe_commit() -> str:
    """Returns what git says of the checkout that this package lies in.

    Returns:
      Such as "v0.1.0-12-g1a2b3c4", or "1a2b3c4" where there is no tag; "-dirty" at the end says
      that files were changed since. The version where it is no checkout, or there is no git.
    """
    root = Path(__file__).parents[2]
    if (root / ".git").exists():
        command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--tags"]
        try:
            found = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
            return found.stdout.strip()
        except (OSError, subprocess.SubprocessError):
            pass
    try:
        return importlib.metadata.version("dmfer-jax")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
