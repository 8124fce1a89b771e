"""Many files are decoded at a time, or one alone."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

from data.sandbox.gate import Gate


def test_a_second_attempt_is_alone() -> None:
    gate, seen, inside = Gate(), [], threading.Event()

    def together(number: int) -> None:
        with gate.together():
            seen.append(("in", number))
            inside.set()
            time.sleep(0.05)
            seen.append(("out", number))

    def alone() -> None:
        with gate.alone():
            seen.append(("in", -1))
            time.sleep(0.05)
            seen.append(("out", -1))

    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(together, 0)
        inside.wait()
        work = [pool.submit(alone), *(pool.submit(together, n) for n in (1, 2))]
        for one in [first, *work]:
            one.result()
    entered = seen.index(("in", -1))
    assert seen[entered + 1] == ("out", -1)
    assert ("out", 0) in seen[:entered]
