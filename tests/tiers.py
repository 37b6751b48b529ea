"""Which tests belong to `make test-long`, so that `make test` stays under five minutes on two cores."""

from __future__ import annotations

import os

import pytest

__all__ = ["is_long"]

#: Modules whose every test takes seconds.
LONG_MODULES = {"test_streams_faults", "test_messenger_faults", "test_messenger", "test_health_processes"}
#: Modules whose tests on a real Kafka are long: in the quick run Redis stands for both.
LONG_ON_KAFKA = {
    *("test_metrics", "test_kv_store", "test_srpc", "test_streams", "test_streams_more", "test_faces_map"),
    *("test_progress", "test_running", "test_sim_sweep"),
}
#: Of those, what is quick and shows the most.
QUICK_ON_KAFKA = {
    "test_items_come_in_order_and_complete",
    "test_a_function_reads_what_is_sent",
    "test_leaving_ends_the_generator",
}
LONG_TESTS = {
    *("test_without_a_worker_every_answer_is_an_error", "test_a_get_that_nobody_answers_is_sent_ten_times"),
    *("test_without_a_worker_the_answer_is_an_error_and_the_gateway_lives_on", "test_large_items", "test_mail_about_no_stream"),
    *("test_a_hundred_thousand_items_need_a_bounded_number_of_calls", "test_many_large_streams_at_once"),
    *(
        "test_leaving_before_it_started",
        "test_a_thousand_streams_hold_up_no_other_call",
        "test_a_stream_that_is_sent_again_is_read_once",
    ),
    *(
        "test_no_descendant_survives",
        "test_a_topic_that_was_deleted_is_made_again",
        "test_what_a_killed_server_ran_is_taken_over",
    ),
    *(
        "test_mail_about_a_stream_that_runs",
        "test_keys_are_rotated_under_running_servers",
        "test_twenty_client_processes_at_once",
    ),
}


#: What CI runs with the quick tests, and `make test-long` with the long ones: a look at tools and stand-ins of ours, at type
#: checkers and at examples, and whatever of the simulation the gate does not need.
THOROUGH_MODULES = {
    *(
        "test_sim_sweep",
        "test_sim_reach",
        "test_sim_plain",
        "test_workers_process_start",
        "test_pytest_plugin",
        "test_client_types",
    ),
    *("test_kafka_coordinator", "test_kafka_groups", "test_kafka_connecting", "test_dev_kafka_cluster", "test_short_examples"),
    *("test_metrics", "test_server_command"),
}


def is_long(item: pytest.Item) -> bool:
    """Whether it belongs to `make test-long`: the whole runs of systems and of faults, which take many seconds each."""
    module = item.path.stem
    name, _, params = item.name.partition("[")
    if module in THOROUGH_MODULES and not os.environ.get("CI"):
        return True
    if module in LONG_MODULES or name in LONG_TESTS:
        return True
    return module in LONG_ON_KAFKA and "kafka" in params and name not in QUICK_ON_KAFKA
