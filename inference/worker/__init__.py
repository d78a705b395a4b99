"""Requests to recommendations: micro-batches, deadlines, hot swap, offsets committed after delivery."""
