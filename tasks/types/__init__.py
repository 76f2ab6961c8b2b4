"""Key types: each encodes values so that ascending order of the encoded ones is the type's order. One file a type."""
