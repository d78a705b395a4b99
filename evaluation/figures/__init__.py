"""The paper's Figures 4, 5 and 6 on KuaiRand-Pure: `forms` says how much, `run` makes what is missing."""
