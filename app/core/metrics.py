"""What the web process counts, in a registry of its own: one per application, none at module level."""

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

# From a health check to a long upload; the default buckets end at 10 s.
_SECONDS = (0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 120, 600)


class Metrics:
    """Counters of requests, uploads and rings."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "basisconv_http_requests",
            "Answered requests.",
            ["method", "route", "status"],
            registry=self.registry,
        )
        self.request_seconds = Histogram(
            "basisconv_http_request_seconds",
            "From the first byte of the request to the last of the answer.",
            ["method", "route"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.upload_bytes = Counter(
            "basisconv_upload_bytes", "Bytes of accepted uploads.", ["kind"], registry=self.registry
        )
        self.rings_failed = Counter(
            "basisconv_rings_failed",
            "Messages that the broker did not take.",
            ["task"],
            registry=self.registry,
        )
        self.streams_opened = Counter(
            "basisconv_event_streams_opened", "Event streams opened.", registry=self.registry
        )

    def text(self) -> bytes:
        return generate_latest(self.registry)
