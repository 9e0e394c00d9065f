"""A broker that has lost its topics is noticed, and one that is away is not taken for one."""

from __future__ import annotations

import pytest

from camlink.pipeline.bus.kafka_topics import KafkaAddress, TopicWatch

ADDRESS = KafkaAddress.parse("kafka://127.0.0.1:9/site")


@pytest.mark.parametrize("now", ["b", None])
def test_other_topics_or_none_mean_that_everything_is_lost(now: str | None, caplog: pytest.LogCaptureFixture) -> None:
    watch = TopicWatch(lambda: now, "a", ADDRESS)
    watch.close()
    assert watch.once()
    assert watch.lost == "kafka://127.0.0.1:9/site: the broker has lost its topics, and all that was in them"
    assert "this worker ends" in caplog.text


def test_the_same_topics_and_a_broker_that_is_away_mean_nothing() -> None:
    def away() -> str:
        raise OSError("refused")

    for look, answered in ((lambda: "a", True), (away, False)):
        watch = TopicWatch(look, "a", ADDRESS)
        watch.close()
        assert watch.once() == answered
        assert watch.lost is None


def test_a_broker_that_is_away_is_told_of_once_and_once_when_it_is_back(caplog: pytest.LogCaptureFixture) -> None:
    answers = iter([OSError("refused"), OSError("still refused"), "a", "a"])

    def look() -> str:
        answer = next(answers)
        if isinstance(answer, OSError):
            raise answer
        return answer

    watch = TopicWatch(look, "a", ADDRESS)
    watch.close()
    assert [watch.once() for _ in range(4)] == [False, False, True, True]
    away, back = (record.getMessage() for record in caplog.records)
    assert away.endswith("the broker does not answer; trying again until it does: refused")
    assert back.endswith("the broker answers again")
