"""What ``xdplb run --listen`` serves: metrics, the status, and a page that shows it. Read-only."""
