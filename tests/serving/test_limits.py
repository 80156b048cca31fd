"""Rates, by a clock that the test sets."""

import pytest

from dmfer_jax.serving.limits import Rate, name_client


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_burst_passes_then_one_for_each_time_that_went_by():
    clock = Clock()
    rate = Rate(per_minute=6, burst=3, clients=10, clock=clock)
    assert [rate.take("a") for _ in range(5)] == [0, 0, 0, 10, 10]
    clock.now = 4
    assert rate.take("a") == 6
    clock.now = 10
    assert [rate.take("a"), rate.take("a")] == [0, 10]
    clock.now = 1000  # more than the burst is never saved up
    assert [rate.take("a") for _ in range(4)] == [0, 0, 0, 10]


def test_clients_do_not_wait_for_each_other():
    rate = Rate(per_minute=1, burst=1, clients=10, clock=Clock())
    assert [rate.take("a"), rate.take("b"), rate.take("a")] == [0, 0, 60]


def test_no_more_clients_are_remembered_than_there_is_room_for():
    rate = Rate(per_minute=1, burst=1, clients=2, clock=Clock())
    for name in "abcdefg":
        rate.take(name)
    assert len(rate._left) == 2
    assert rate.take("g") > 0


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("testclient", "testclient"),
    ],
)
def test_network_of_ipv6_is_one_client(address, expected):
    assert name_client(address) == expected


def test_addresses_are_forgotten_when_they_could_be_new_ones():
    now = [0.0]
    rate = Rate(60, 30, 4096, lambda: now[0])
    rate.take("203.0.113.7")
    now[0] = 29.0
    rate.take("203.0.113.8")
    assert list(rate._left) == ["203.0.113.7", "203.0.113.8"]
    now[0] = 31.0
    rate.take("203.0.113.9")
    assert list(rate._left) == ["203.0.113.8", "203.0.113.9"]
