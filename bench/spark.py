"""A peer of the benchmark: the sample topic sorted by three keys by Spark, each into a topic of its own.

    spark-submit --master 'local[2]' --packages org.apache.spark:spark-sql-kafka-0-10_2.13:4.2.0 \
        bench/spark.py BOOTSTRAP_SERVERS TOPIC OUTPUT_PREFIX

The order is total over the output's partitions, since a Spark partition is a range of keys; delivery is at least once.
Needs a Spark 4.2 of the user's own (`pip install pyspark`), which is no dependency of this project.
"""

import sys

from pyspark.sql import DataFrame, SparkSession, functions as f

PARTITIONS = 4
KEYS = {"id": (0, "int"), "name": (1, "string"), "continent": (3, "string")}


def write_sorted(rows: DataFrame, bootstrap: str, topic: str, position: int, kind: str) -> None:
    """Make one sort: key ranges go to PARTITIONS Spark partitions, each to the Kafka partition of its number."""
    key = f.split(f.col("value").cast("string"), ",").getItem(position).cast(kind)
    ordered = rows.withColumn("k", key).repartitionByRange(PARTITIONS, "k").sortWithinPartitions("k")
    placed = ordered.select("value", f.spark_partition_id().alias("partition"))
    options = {"kafka.bootstrap.servers": bootstrap, "topic": topic, "kafka.acks": "all"}
    tuned = {"kafka.compression.type": "lz4", "kafka.batch.size": "1000000", "kafka.linger.ms": "20"}
    placed.write.format("kafka").options(**options, **tuned).save()


def main() -> None:
    bootstrap, topic, prefix = sys.argv[1:]
    spark = SparkSession.builder.appName("bench").getOrCreate()
    source = spark.read.format("kafka").options(**{"kafka.bootstrap.servers": bootstrap, "subscribe": topic}).load()
    for name, (position, kind) in KEYS.items():
        write_sorted(source.select("value"), bootstrap, f"{prefix}-{name}", position, kind)
    spark.stop()


if __name__ == "__main__":
    main()
