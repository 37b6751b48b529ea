"""A first client. `python -m prpc.create_server_func` writes server_func.py from the running server."""

from server_func import summ

print(summ(1, 2).result(timeout=20))
