"""PyPI py-KISSmetrics 1.1.0 as its users use it: `record_by_pypi.py HOST:PORT` prints the status of each call."""

import sys

import KISSmetrics

client = KISSmetrics.Client("py-key", trk_host=sys.argv[1], trk_scheme="http")
calls = [
    client.record("ann@example.com", "Signed Up", {"Plan Name": "Pro & more", "Billing.Amount": 42}),
    client.record("ann@example.com", "Imported", timestamp=1700000000),
    client.set("ann@example.com", {"gender": "weiblich, ä"}),
    client.alias("ann@example.com", "user-17"),
]
print(*[call.status for call in calls])
