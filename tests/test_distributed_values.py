"""Processes find out that they have different values, and do what process 0 decides."""

import subprocess
import sys

from tests.test_distributed import ROOT, free_port

WORKER = """
import sys
from dmfer_jax import distributed
from dmfer_jax.errors import UserError

coordinator, process = sys.argv[1], int(sys.argv[2])
distributed.start(coordinator, 2, process, timeout=120)
distributed.check_same("abc", "digest of the records")
decided = distributed.decided_by_main(lambda: [process, "best", None])
print(f"decided: {decided}", file=sys.stderr)
try:
    distributed.check_same(f"abc{process}", "digest of the records")
except UserError as error:
    print(error, file=sys.stderr)
"""


def test_all_say_that_the_values_of_two_processes_differ():
    coordinator = f"localhost:{free_port()}"
    started = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, coordinator, str(process)],
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
        )
        for process in (0, 1)
    ]
    lines = [process.communicate(timeout=300)[1].splitlines() for process in started]
    assert all("decided: [0, 'best', None]" in of_one for of_one in lines)
    said = [of_one[-1] for of_one in lines]
    message = "the digest of the records is abc1 here, and abc0 in process 0"
    assert said == [f"process 1 failed: {message}", message]
