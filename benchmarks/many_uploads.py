"""Sends many photos to a running server at the same moment, and says what became of each.

  python -m dmfer_jax.serve --model=model.safetensors --port=8000
  python benchmarks/many_uploads.py --photos=path/to/photos --count=50

Prints how many were served and how many were told to come back, how long each kind waited, the most
memory that the server had if `--pid` names it, and whether it answers afterwards.
"""

import argparse
import json
import statistics
import sys
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # so that it runs as a script

from benchmarks import measurements


def send(address: str, photo: bytes) -> dict[str, Any]:
    """Returns the status of one upload, the seconds it took, its faces and when to come back."""
    began = time.monotonic()
    try:
        with urllib.request.urlopen(f"{address}/api/faces", photo, timeout=600) as answer:
            found = {"status": answer.status, "faces": len(json.load(answer)["faces"])}
    except urllib.error.HTTPError as refused:
        with refused:
            found = {"status": refused.code, "retry_after": refused.headers["Retry-After"]}
    except OSError as error:
        found = {"status": f"no answer: {error}"}
    return {**found, "seconds": round(time.monotonic() - began, 3)}


def send_at_once(address: str, photos: list[bytes], count: int) -> list[dict[str, Any]]:
    """Returns what became of each of `count` uploads that begin together."""
    together = threading.Barrier(count)

    def wait_and_send(number: int) -> dict[str, Any]:
        together.wait()
        return send(address, photos[number % len(photos)])

    with ThreadPoolExecutor(count) as threads:
        return list(threads.map(wait_and_send, range(count)))


def main() -> None:
    """Sends, and prints what became of it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--address", default="http://127.0.0.1:8000", help="of the server")
    parser.add_argument("--photos", type=Path, required=True, help="folder with photos to send")
    parser.add_argument("--count", type=int, default=50)
    parser.add_argument("--pid", type=int, help="of the server, to read its peak memory")
    parser.add_argument("--out", type=Path, help="JSON file for every answer")
    options = parser.parse_args()
    address = options.address.rstrip("/")
    photos = [path.read_bytes() for path in sorted(options.photos.iterdir()) if path.is_file()]
    answers = send_at_once(address, photos, options.count)
    for status in sorted({str(one["status"]) for one in answers}):
        seconds = [one["seconds"] for one in answers if str(one["status"]) == status]
        print(
            f"{status}: {len(seconds)}, after {statistics.median(seconds):.2f} s "
            f"({min(seconds):.2f} to {max(seconds):.2f})"
        )
    with urllib.request.urlopen(f"{address}/health", timeout=60) as answer:
        print(f"afterwards: {answer.read().decode().strip()}")
    peak = None
    if options.pid:
        status = Path(f"/proc/{options.pid}/status").read_text()
        peak = next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]
        print(f"peak memory of the server: {int(peak) / 1024:,.0f} MiB")
    report = {"machine": measurements.machine(), "peak_kib": peak, "answers": answers}
    measurements.write(options.out, report)


if __name__ == "__main__":
    main()
