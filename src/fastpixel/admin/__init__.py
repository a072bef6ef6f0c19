"""The admin side: health, readiness and metrics for operators, on its own listener and never on the public port."""
