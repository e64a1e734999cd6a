"""The servers that `make run` and the tests bring along: PostgreSQL and Valkey from their pip wheels."""
