"""Amazon Beauty with TIGER's protocol: baselines, TIGER, OneRec, and what is added to it row by row."""
