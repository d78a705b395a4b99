"""The paper's Table 1 on KuaiRand-Pure: `protocol` says how, `run` does it, `report` lays it out."""
