"""The parts of a sort: its order, the split into parts that fit the memory, rows by number, and the cuts."""
