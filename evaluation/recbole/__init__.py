"""The item-wise baselines against RecBole's: its SASRec on Amazon Beauty beside ours, by one protocol."""
