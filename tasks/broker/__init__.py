"""The embedded broker: a real Apache Kafka in one JVM, for demos, tests and benchmarks."""
