"""What the client alone can do: bytes of a frame's size, produced in one process and consumed in another.

The same broker, number of partitions, acknowledgements and batch sizes as camlink's bus; no JPEG, no records.
"""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer

STAMP = struct.Struct(">d")
PARTITIONS = 12
MOST_UNDELIVERED = 32_000_000  # as camlink's bus


@dataclass(frozen=True)
class Bare:
    """CPU per message at either end, in microseconds, and the milliseconds from end to end, sorted."""

    produce_us: float
    consume_us: float
    wall_per_s: float
    latency_ms: list[float]


def run(servers: str, topic: str, size: int, count: int, rate: float, client: str, wait_ms: int) -> Bare:
    """Send ``count`` messages of ``size`` bytes, ``rate`` a second (0: at once)."""
    admin = KafkaAdminClient(bootstrap_servers=servers)
    admin.create_topics({topic: {"num_partitions": PARTITIONS, "replication_factor": 1}})
    admin.close()
    told = [servers, topic, str(size), str(count), str(rate), client, str(wait_ms)]
    ends = {}
    for end in ("consume", "produce"):
        command = [sys.executable, "-m", "benchmarks.distributed.bare", end, *told]
        process = ends[end] = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        if end == "consume":
            assert process.stdout is not None
            process.stdout.readline()  # it has its partitions
    produced, consumed = (json.loads(ends[end].communicate(timeout=300)[0]) for end in ("produce", "consume"))
    return Bare(
        produced["cpu_s"] / count * 1e6,
        consumed["cpu_s"] / count * 1e6,
        count / consumed["wall_s"],
        sorted(consumed["latency_ms"]),
    )


def produce(servers: str, topic: str, size: int, count: int, rate: float, client: str, wait_ms: int) -> None:
    """Produce, wait for all acknowledgements, and print the CPU that took."""
    send, flush = (_confluent_producer if client == "confluent" else _kafka_producer)(servers, topic)
    filling = b"\0" * (size - STAMP.size)
    start, cpu = time.monotonic(), time.process_time()
    for number in range(count):
        if rate:
            time.sleep(max(0.0, start + number / rate - time.monotonic()))
        send(STAMP.pack(time.time()) + filling, number % PARTITIONS)
    flush()
    print(json.dumps({"cpu_s": time.process_time() - cpu}))


def consume(servers: str, topic: str, size: int, count: int, rate: float, client: str, wait_ms: int) -> None:
    """Consume, and print CPU, wall time from the first message on, and latencies."""
    poll = (_confluent_consumer if client == "confluent" else _kafka_consumer)(servers, topic, wait_ms)
    print("ready", flush=True)
    latency_ms: list[float] = []
    first = cpu = 0.0
    while len(latency_ms) < count:
        for value in poll():
            if not latency_ms:
                first, cpu = time.monotonic(), time.process_time()
            latency_ms.append((time.time() - STAMP.unpack_from(value)[0]) * 1000)
    wall = time.monotonic() - first
    print(json.dumps({"cpu_s": time.process_time() - cpu, "wall_s": wall, "latency_ms": latency_ms}))


Send = Callable[[bytes, int], None]
Flush = Callable[[], object]


def _kafka_producer(servers: str, topic: str) -> tuple[Send, Flush]:
    producer = KafkaProducer(
        bootstrap_servers=servers, acks="all", enable_idempotence=True, linger_ms=0, batch_size=262_144
    )
    on_the_way: list[tuple[Any, int]] = []  # the client's futures, and bytes

    def send(data: bytes, partition: int) -> None:
        on_the_way.append((producer.send(topic, data, partition=partition), len(data)))
        if sum(size for _, size in on_the_way[-1000:]) > MOST_UNDELIVERED:
            on_the_way.pop(0)[0].get(timeout=60)
        while on_the_way and on_the_way[0][0].is_done:
            on_the_way.pop(0)

    return send, producer.flush


def _kafka_consumer(servers: str, topic: str, wait_ms: int) -> Callable[[], Iterator[bytes]]:
    from kafka import TopicPartition

    consumer = KafkaConsumer(
        bootstrap_servers=servers, auto_offset_reset="earliest", fetch_max_wait_ms=wait_ms, enable_auto_commit=False
    )
    consumer.assign([TopicPartition(topic, number) for number in range(PARTITIONS)])

    def poll() -> Iterator[bytes]:
        for messages in consumer.poll(timeout_ms=50, max_records=200).values():
            yield from (message.value for message in messages)

    return poll


def _confluent_producer(servers: str, topic: str) -> tuple[Send, Flush]:
    from confluent_kafka import Producer

    producer = Producer({"bootstrap.servers": servers, "acks": "all", "enable.idempotence": True, "linger.ms": 0})

    def send(data: bytes, partition: int) -> None:
        while True:
            try:
                producer.produce(topic, data, partition=partition)
                producer.poll(0)
                return
            except BufferError:
                producer.poll(0.05)

    return send, lambda: producer.flush(60)


def _confluent_consumer(servers: str, topic: str, wait_ms: int) -> Callable[[], Iterator[bytes]]:
    from confluent_kafka import Consumer, TopicPartition

    told = {"group.id": f"{topic}-bare", "enable.auto.commit": False, "auto.offset.reset": "earliest"}
    consumer = Consumer({"bootstrap.servers": servers, "fetch.wait.max.ms": wait_ms, **told})
    consumer.assign([TopicPartition(topic, number, 0) for number in range(PARTITIONS)])

    def poll() -> Iterator[bytes]:
        first = consumer.poll(0.05)  # `consume` alone would wait until so many have come
        messages = [] if first is None else [first, *consumer.consume(199, 0.0)]
        values = (message.value() for message in messages if message.error() is None)
        yield from (value for value in values if value is not None)  # none of ours is empty

    return poll


if __name__ == "__main__":
    end, servers, topic, size, count, rate, client, wait_ms = sys.argv[1:]
    act = {"produce": produce, "consume": consume}[end]
    act(servers, topic, int(size), int(count), float(rate), client, int(wait_ms))
