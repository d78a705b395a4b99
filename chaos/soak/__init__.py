"""Long life: full load for half an hour and more, with restarts; what grows is found by its slope."""
