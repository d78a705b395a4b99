"""Sampler: live requests to preference pairs, best and worst of N generated sessions (paper, section 3.3.2)."""
