"""The simulator: pipelines, replicas and requests on virtual time, under the policy code that production runs.

Needs numba (the extra `sim`). Gets and returns values; trace files are read and reports are drawn elsewhere.
"""
