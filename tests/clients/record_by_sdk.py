"""PyPI rudder-sdk-python 2.1.9 and segment-analytics-python 2.4.0 as their users use them; they have the same methods.

`record_by_sdk.py rudder|segment URL KEY [OPTION=JSON ...]`: options of the Client, such as gzip=true. Prints JSON:
{"sent": [each event as the client queued it], "errors": [texts of failed uploads]}.
"""

import json
import sys
from datetime import date, datetime, timezone
from decimal import Decimal

SDK, URL, KEY, *OPTIONS = sys.argv[1:]
if SDK == "rudder":
    from rudderstack.analytics import Client
else:
    from segment.analytics import Client

errors = []
options = {name: json.loads(value) for name, _, value in (option.partition("=") for option in OPTIONS)}
client = Client(KEY, host=URL, on_error=lambda error, _: errors.append(str(error)), **options)
when = datetime(2023, 11, 14, 22, 13, 20, 123456, tzinfo=timezone.utc)
calls = [
    client.identify("ann@example.com", {"plan": "pro", "born": date(1990, 1, 2)}, context={"ip": "198.51.100.7"}),
    client.track("ann@example.com", "Größe 😀", {"price": Decimal("49.5"), "n": 2**53 + 1, "tags": ["a", None]}),
    client.track(4711, "Imported", timestamp=when, integrations={"All": False}, message_id="m-1"),
    client.page(anonymous_id="a-1", category="Docs", name="Start", properties={"url": "https://example.com/?a=1&b=2"}),
    client.screen("ann@example.com", name="Main"),
    client.group("ann@example.com", "g-1", {"name": "Acme", "seats": {"used": 3}}),
    client.alias("a-1", "ann@example.com"),
]
if not client.sync_mode:
    client.shutdown()
assert all(queued for queued, _ in calls)
print(json.dumps({"sent": [event for _, event in calls], "errors": errors}, default=str))
