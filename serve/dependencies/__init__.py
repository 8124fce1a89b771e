"""PostgreSQL connections with deadlines, and the health of dependencies as a front door last saw it."""
