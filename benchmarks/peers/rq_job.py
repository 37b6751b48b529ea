"""What RQ's worker imports."""


def add(a, b):
    return a + b
