"""What one request to the broker costs a kafka-python client, what one more message in it does, and what coding does.

    python -m benchmarks.distributed.requests

CPU time of all threads of the client, in microseconds: why workers ask seldom and take much (`pipeline/bus/pace.py`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial

import numpy as np
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from rich.console import Console
from rich.table import Table

from benchmarks.distributed.bare import PARTITIONS
from benchmarks.distributed.load import jpeg_of, picture
from camlink.pipeline import testbed
from camlink.pipeline.codec import decode, encode
from camlink.pipeline.jpeg import JpegPicture
from camlink.pipeline.records import Frame, FrameResult, How, ModelOutput, OutputReady, Record, Settled

NOW = datetime(2026, 1, 5, 8, tzinfo=UTC)
TOPICS = ("small", "frames", "empty-1", "empty-2", "single")


class Cost:
    """CPU microseconds for each of so many, when the context ends."""

    each_us = 0.0


@contextmanager
def spent(times: int) -> Iterator[Cost]:
    """Count this process's CPU time."""
    cost, begun = Cost(), time.process_time()
    yield cost
    cost.each_us = (time.process_time() - begun) / times * 1e6


def reader(servers: str, topics: tuple[str, ...]) -> KafkaConsumer:
    """Return a consumer of all partitions of ``topics``, from their beginning."""
    consumer = KafkaConsumer(
        bootstrap_servers=servers, auto_offset_reset="earliest", fetch_max_wait_ms=50, enable_auto_commit=False
    )
    consumer.assign([TopicPartition(topic, number) for topic in topics for number in range(PARTITIONS)])
    return consumer


def take(consumer: KafkaConsumer, count: int) -> None:
    """Read so many messages."""
    while count > 0:
        count -= sum(map(len, consumer.poll(timeout_ms=50, max_records=200).values()))


def in_bulk(servers: str, producer: KafkaProducer, topic: str, size: int, count: int) -> tuple[float, float]:
    """Return what writing and reading one message of many costs."""
    with spent(count) as written:
        for number in range(count):
            producer.send(topic, bytes(size), partition=number % PARTITIONS)
        producer.flush()
    consumer = reader(servers, (topic,))
    with spent(count) as read:
        take(consumer, count)
    consumer.close()
    return written.each_us, read.each_us


def alone(servers: str, producer: KafkaProducer, topics: tuple[str, ...], count: int = 100) -> tuple[float, float]:
    """Return what writing and reading one message costs that travels alone, where these topics are read."""
    consumer, written_us, read_us = reader(servers, topics), 0.0, 0.0
    while consumer.poll(timeout_ms=200):
        pass  # what was there before
    for number in range(count):
        with spent(1) as written:
            producer.send(topics[0], bytes(150), partition=number % PARTITIONS).get(10)
        with spent(1) as read:
            take(consumer, 1)
        written_us, read_us = written_us + written.each_us, read_us + read.each_us
    consumer.close()
    return written_us / count, read_us / count


def records() -> dict[str, Record]:
    """Return one record of each kind that travels with every frame."""

    def output(model: str, linked: bool) -> ModelOutput:
        how: How = "linked" if linked else "executed"
        value = np.ones(2, np.float32)
        return ModelOutput("hall", 77, NOW, model, value, "serve", how, sources=("objects",) if linked else ())

    outputs = (output("objects", False), output("persons", True), output("bags", True))
    return {
        "Frame, 50 KB": Frame("hall", 77, NOW, JpegPicture.of(jpeg_of(picture(50_000, 0)))),
        "OutputReady": OutputReady("hall", 77, NOW, "serve", ("objects",), ("persons", "bags")),
        "FrameResult": FrameResult("hall", 77, NOW, "serve", outputs),
        "Settled": Settled("hall", 77, NOW, NOW),
    }


def least_us(act: Callable[[], object], times: int = 500) -> float:
    """Return the least of five means."""
    costs = []
    for _ in range(5):
        with spent(times) as cost:
            for _ in range(times):
                act()
        costs.append(cost.each_us)
    return min(costs)


def main() -> None:
    table = Table("what", "written, µs", "read, µs")
    with testbed.broker() as broker:
        servers = f"127.0.0.1:{broker.port}"
        admin = KafkaAdminClient(bootstrap_servers=servers)
        admin.create_topics({t: {"num_partitions": PARTITIONS, "replication_factor": 1} for t in TOPICS})
        admin.close()
        producer = KafkaProducer(bootstrap_servers=servers, acks="all", enable_idempotence=True, linger_ms=0)
        rows = {
            "a message of 150 bytes among many": in_bulk(servers, producer, "small", 150, 5000),
            "a message of 50 KB among many": in_bulk(servers, producer, "frames", 50_000, 1000),
            "a message alone, 12 partitions read": alone(servers, producer, ("single",)),
            "a message alone, 36 partitions read": alone(servers, producer, ("single", "empty-1", "empty-2")),
        }
        producer.close()
    for name, record in records().items():
        data = encode(record, "host:123")
        rows[f"coding: {name}"] = (least_us(partial(encode, record, "host:123")), least_us(partial(decode, data)))
    for name, costs in rows.items():
        table.add_row(name, *[f"{cost:,.0f}" for cost in costs])
    Console().print(table)


if __name__ == "__main__":
    main()
