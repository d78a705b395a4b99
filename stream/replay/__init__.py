"""Publishes a recorded log as a live stream: items, histories, then requests, impressions and actions in time order."""
