"""Which state of this project's code is running, and on what."""

import importlib.metadata
import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any


def describe_environment() -> dict[str, Any]:
    """Describes what a run ran on: versions and devices; no host name and no path."""
    import jax

    packages = {name: _version(name) for name in ("dmfer-jax", "jax", "jaxlib", "flax", "optax")}
    return {
        "python": platform.python_version(),
        **{name.replace("-", "_"): version for name, version in packages.items()},
        "commit": describe_commit(),
        "system": f"{platform.system()} {platform.machine()}",
        "processor": describe_processor(),
        "cores": _usable_cores(),
        "backend": jax.default_backend(),
        "device": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
        "processes": jax.process_count(),
    }


def describe_processor() -> str:
    """Returns the name of the processor as Linux tells it, elsewhere its architecture."""
    try:
        told = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        told = ""
    found = re.search(r"^model name\s*:\s*(.+)$", told, re.MULTILINE)
    return found[1].strip() if found else platform.machine()


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
    return _version("dmfer-jax") or "unknown"


def _usable_cores() -> int:
    # Containers and clusters give a process fewer cores than the machine has.
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
