"""Types as verification understands them: each turns values into bytes that compare as the type does, or refuses."""
