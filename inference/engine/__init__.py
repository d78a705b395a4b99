"""The decode engine: sessions of semantic ids by constrained beam search or sampling over an immutable catalogue.

What narrower beams from the second item of a session on (`inference.decoding.later_beam_width`) cost and save,
measured with preset small after 30,000 seed samples on KuaiRand: 7,583 items, 256 users with ten exposures or more,
batches of 8, float32, one core of a shared machine (its milliseconds vary, compare the rows). The ranked next
items come from the first slot and are the same in all rows.

| beams, first slot and later | ms a request | log-probability of the best session | items shared | expected watch |
|---|---|---|---|---|
| 32, 32 | 19.5 | -22.26 | 1.00 | .4377 |
| 32, 16 | 12.1 | -22.47 | .86  | .4387 |
| 32, 8  | 8.4  | -22.81 | .76  | .4394 |
| 32, 4  | 7.0  | -23.30 | .66  | .4403 |

"Expected watch" is swt of the reward model of the same seed: it does not fall, so what narrow beams lose is
likelihood only, as far as that model can tell. The default keeps all beams throughout.
"""
