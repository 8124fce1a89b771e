"""`python -m jobs.bench`."""

import signal
import sys

from jobs.bench.job import Arguments, work
from jobs.runtime import entry

if __name__ == "__main__":
    # Else the platform of a benchmark that is ended would stay.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("make bench: ended"))
    try:
        work(entry.parse(Arguments, "bench"))
    except entry.EXPECTED as error:
        sys.exit(f"make bench: {error}")
