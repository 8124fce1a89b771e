"""`python -m jobs.load_test`."""

from jobs.load_test.job import Arguments, work
from jobs.runtime import entry

if __name__ == "__main__":
    entry.run("load_test", lambda: work(entry.parse(Arguments, "load_test")))
