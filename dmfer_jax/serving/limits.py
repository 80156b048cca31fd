"""What a server takes at the most, and how often."""

import ipaddress
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from dmfer_jax.expression_model import count_workers


class Refused(Exception):
    """A request that is not served; its text is a plain sentence for whoever sent it.

    Attributes:
      status: of the answer, of HTTP.
      retry_after: seconds after which the same request may be served; None if it never will.
    """

    def __init__(self, status: int, reason: str, retry_after: int | None = None) -> None:
        super().__init__(reason)
        self.status, self.retry_after = status, retry_after


@dataclass(frozen=True)
class Limits:
    """What is taken at the most.

    Attributes:
      upload_bytes: of one request's body.
      pixels: of a photo. 25 million of a PNG with transparency take 300 MB while they are read.
      upload_seconds: that the body of a request may take to arrive.
      places: requests with a photo that are received, wait or are worked on at once. Together
        with `upload_bytes` it bounds the memory that uploads take.
      client_places: of these, those that one client may have.
      workers: photos that are worked on at once.
      client_per_minute: photos of one client, after a first `client_burst`.
      client_burst: photos that one client may send at once.
      all_per_minute: photos of all clients together, after a first `all_burst`.
      all_burst: photos that all clients together may send at once.
      clients: addresses that are remembered, until the next photo half a minute later.
    """

    upload_bytes: int = 16 * 2**20
    pixels: int = 25_000_000
    upload_seconds: float = 30.0
    places: int = 24
    client_places: int = 8
    workers: int = count_workers()
    client_per_minute: float = 60.0
    client_burst: int = 30
    all_per_minute: float = 600.0
    all_burst: int = 200
    clients: int = 4096


class Rate:
    """Lets so many through a minute, of each client by itself: token buckets.

    Args:
      per_minute: that are let through in the long run.
      burst: that are let through at once by a client who was not there for a while.
      clients: to remember; of more, those who were let through longest ago are forgotten.
      clock: gives seconds.
    """

    def __init__(
        self,
        per_minute: float,
        burst: int,
        clients: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._per_second, self._burst, self._clients = per_minute / 60, burst, clients
        self._clock = clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()  # tokens, at what time

    def take(self, client: str) -> int:
        """Returns 0 and counts one if the client may pass, else the seconds to wait."""
        now = self._clock()
        full_after = self._burst / self._per_second
        while self._left and now - next(iter(self._left.values()))[1] > full_after:
            self._left.popitem(last=False)  # as if never there
        left, then = self._left.get(client, (float(self._burst), now))
        left = min(left + (now - then) * self._per_second, float(self._burst))
        if left < 1:
            return max(math.ceil((1 - left) / self._per_second), 1)
        self._left[client] = (left - 1, now)
        self._left.move_to_end(client)
        if len(self._left) > self._clients:
            self._left.popitem(last=False)
        return 0


def name_client(address: str) -> str:
    """Returns by what a client is counted: its address, or of IPv6 the network of 64 bits.

    Whoever has one address of IPv6 has 2^64 of them.
    """
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:  # a socket of the system, or a test
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)
