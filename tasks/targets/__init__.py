"""Where sorted rows go: one file a kind of output, behind the protocol `Target`."""
