"""VMware suspend states and snapshots."""
