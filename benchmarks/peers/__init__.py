"""Other ways to call a Python function elsewhere, each as its documentation says that it is fast.

Each module is its own server and client. It runs in an environment where that library is and PRPC is not: see the requirements
beside it, and `make bench-peers`.
"""
