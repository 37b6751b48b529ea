"""Every scenario runs against the Kafka in memory and a real one, so that the first is held to the second."""

from __future__ import annotations

import pytest

from tests.kafka_talk import Kafka


@pytest.fixture(params=["memory", pytest.param("real", marks=pytest.mark.real_kafka)])
def kafka(request: pytest.FixtureRequest) -> Kafka:
    if request.param == "real":
        return Kafka(request.getfixturevalue("kafka_bootstrap"))
    fake = request.getfixturevalue("fake_kafka")
    return Kafka(fake.bootstrap_servers, fake)
