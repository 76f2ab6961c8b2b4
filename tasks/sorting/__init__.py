"""What a sort is made of: its order, the split into parts that fit the memory, rows by number, and the cuts."""
