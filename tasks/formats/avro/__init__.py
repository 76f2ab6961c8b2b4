"""Avro: decodes binary columns of Avro values by their writer's schema, all records of a block side by side."""
