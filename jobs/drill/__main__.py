"""`python -m jobs.drill`."""

from jobs.drill.job import Arguments, work
from jobs.runtime import entry

if __name__ == "__main__":
    entry.main("drill", Arguments, work)
