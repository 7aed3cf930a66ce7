"""Metrics of disks, engines and the service, for Prometheus and whatever reads its formats."""
