"""The monitoring stack around the exporter: rules, alerts, dashboards, and the servers that run them."""
