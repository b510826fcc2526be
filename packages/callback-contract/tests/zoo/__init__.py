"""Callbacks and trackers, faulty and correct, that the rules of the contract are measured against.

They were written by somebody who did not know the rules.
"""
