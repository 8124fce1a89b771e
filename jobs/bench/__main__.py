"""`python -m jobs.bench`."""

import signal
import sys

from jobs.bench.job import Arguments, work
from jobs.runtime import entry

if __name__ == "__main__":
    # A benchmark that is ended takes its platform down only if the signal becomes an exception.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("make bench: ended"))
    try:
        work(entry.parse(Arguments, "bench"))
    except entry.EXPECTED as error:
        sys.stderr.write(f"make bench: {error}\n")
        sys.exit(entry.EXIT_USAGE if isinstance(error, entry.ArgumentsError) else entry.EXIT_FAILED)
