"""Kafka as the project uses it: clients with the settings that the guarantees rest on, and what is built from them.

Lease, ledger and transaction carry the protocol. `fetch` and `range_reader` read, `sender` sends, `topics` asks the
admin client.
"""
