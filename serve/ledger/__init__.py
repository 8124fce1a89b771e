"""The attempt ledger: durable records, the journal for outages and its replay, the reader for rollouts."""
