"""The wire contract: one `.avsc` a record, the dataclasses that mirror them, the codec and the table of topics."""
