"""The ledger of attempts: durable writes, journal, replay and reader."""
