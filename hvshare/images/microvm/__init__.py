"""Snapshots of Cloud Hypervisor and Firecracker."""
