"""The decode engine and the services around it: worker, sampler, hot swap."""
