"""The imports of the server that forks commands."""

import flows.sort_topic
import kafka_sort.main
import kafka_sort.terminal

PRELOADED = (kafka_sort.main, kafka_sort.terminal, flows.sort_topic)
