"""`onerec demo` and `onerec up`: all services as processes on one machine, watched and shown."""
