"""The `onerec` command line; its sub-commands are put together in `onerec.cli.app`."""
