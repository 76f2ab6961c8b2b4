"""Protobuf values: from serialized messages to key columns. It needs the extra `protobuf`."""
