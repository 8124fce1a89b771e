"""`python -m jobs.load_test`."""

from jobs.load_test.job import Arguments, work
from jobs.runtime import entry

if __name__ == "__main__":
    entry.main("load_test", Arguments, work)
