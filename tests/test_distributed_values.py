"""Processes find out that they have different values, and all say so."""

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
    said = [process.communicate(timeout=300)[1].splitlines()[-1] for process in started]
    message = "the digest of the records is abc1 here, and abc0 in process 0"
    assert said == [f"process 1 failed: {message}", message]
