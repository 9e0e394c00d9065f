"""Servers and an RTSP camera for tests, demos and benchmarks, on free ports of loopback."""

from camlink.pipeline.testbed.servers import Server, answers, broker, free_port, missing_servers, redis_server

__all__ = ["Server", "answers", "broker", "free_port", "missing_servers", "redis_server"]
